// A face that is dragged onto a pose is two clicks: on the face, then on the pose. Pointers are mice, pens and fingers.
if (!window.pclDrag) {
  window.pclDrag = true;
  let face = null, ghost = null, start = null;
  const end = () => {
    ghost?.remove();
    face = ghost = null;
  };
  const begin = (event) => {
    end();
    face = event.isPrimary && event.button === 0 ? event.target.closest?.(".pcl-matrix-face") : null;
    start = [event.clientX, event.clientY];
  };
  const move = (event) => {
    if (!face) return;
    const { width, height } = face.getBoundingClientRect();
    if (!ghost) {
      if (Math.hypot(event.clientX - start[0], event.clientY - start[1]) < 6) return;
      ghost = document.createElement("div");
      ghost.style.cssText = `position: fixed; z-index: 9999; pointer-events: none; opacity: 0.85;
        width: ${width}px; height: ${height}px; border-radius: 4px; outline: 3px solid #0072b2;`;
      ghost.style.background = getComputedStyle(face).background;
      document.body.append(ghost);
    }
    ghost.style.left = `${event.clientX - width / 2}px`;
    ghost.style.top = `${event.clientY - height / 2}px`;
  };
  const drop = (event) => {
    const under = ghost && document.elementFromPoint(event.clientX, event.clientY);
    const pose = under?.closest(".pcl-matrix-pose");
    if (pose && pose.closest(".pcl-matrix") === face.closest(".pcl-matrix")) {
      face.click();
      pose.click();
    }
    end();
  };
  for (const [name, handler] of Object.entries({ pointerdown: begin, pointermove: move, pointerup: drop, pointercancel: end })) {
    document.addEventListener(name, handler, true);
  }
}
