// Gives names to what ipywidgets leaves without one for screen readers: the handles of sliders, and pictures.
const name = (panel) => {
  for (const slider of panel.querySelectorAll(".widget-slider, .widget-hslider")) {
    const label = slider.querySelector(".widget-label")?.textContent.trim();
    for (const handle of slider.querySelectorAll(".noUi-handle")) {
      if (label && handle.ariaLabel !== label) handle.ariaLabel = label;
    }
  }
  for (const image of panel.querySelectorAll("img.widget-image, .widget-image img")) {
    const caption = image.closest(".widget-vbox")?.querySelector(".widget-html-content")?.textContent.trim();
    const said = image.className.includes("pcl-cell-") ? "" : caption || "picture";
    if (!image.hasAttribute("alt") || image.alt !== said) image.alt = said;
  }
};
let tries = 0;
const start = () => {
  const panel = this.closest(".pcl-panel");
  if (panel) {
    name(panel);
    new MutationObserver(() => name(panel)).observe(panel, { childList: true, subtree: true });
  } else if (tries++ < 100) {
    setTimeout(start, 100); // the picture is there before the panel that holds it
  }
};
start();
