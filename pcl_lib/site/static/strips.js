// Shows the picture of a strip that belongs to the places of its sliders.
document.querySelectorAll("figure.strip").forEach((figure) => {
  const { columns, lines, counts } = JSON.parse(figure.dataset.strip);
  const picture = figure.querySelector(".strip-picture");
  const sliders = [...figure.querySelectorAll("input")];
  const about = picture.getAttribute("aria-label");
  const show = () => {
    let place = 0;
    const said = sliders.map((slider, i) => {
      place = place * counts[i] + Number(slider.value);
      const name = JSON.parse(slider.dataset.places)[slider.value];
      slider.setAttribute("aria-valuetext", name);
      slider.nextElementSibling.value = name;
      return `${slider.labels[0].textContent}: ${name}`;
    });
    const percent = (index, count) => (count > 1 ? (100 * index) / (count - 1) : 0);
    const column = place % columns, line = Math.floor(place / columns);
    picture.style.backgroundPosition = `${percent(column, columns)}% ${percent(line, lines)}%`;
    picture.setAttribute("aria-label", `${about} ${said.join(", ")}.`);
  };
  sliders.forEach((slider) => slider.addEventListener("input", show));
  show();
});

// A picture of the course opens as large as the window, by a click or by Enter, and closes by Escape or a click.
const large = document.createElement("dialog");
large.className = "large-picture";
large.setAttribute("aria-label", "The picture, large");
large.innerHTML = '<button type="button" aria-label="Close">×</button><img alt="">';
large.addEventListener("click", () => large.close());
document.body.append(large);
document.querySelectorAll("article img").forEach((image) => {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "opens-large";
  const link = image.closest("a");
  (link ?? image).replaceWith(button);
  button.append(image);
  button.addEventListener("click", () => {
    large.querySelector("img").src = image.src;
    large.querySelector("img").alt = image.alt;
    large.showModal();
  });
});

// A table that is wider than the page can be scrolled by the keyboard too.
const focusable = () =>
  document.querySelectorAll("article table").forEach((table) => {
    if (table.scrollWidth > table.clientWidth) table.tabIndex = 0;
    else table.removeAttribute("tabindex");
  });
focusable();
window.addEventListener("resize", focusable);
