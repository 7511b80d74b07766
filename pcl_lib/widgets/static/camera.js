// Runs as a handler of the last picture of the camera's markup: shows the camera, and hands a picture of it to Python
// as "A data:image/jpeg;base64,..." by way of a hidden text area; or the name of what went wrong, as "! NotFoundError".
const root = this.closest(".pcl-camera");
const video = root.querySelector("video");
const [open, ...takers] = root.querySelectorAll("button");
let stream = null;

const say = (text) => {
  const area = root.closest(".pcl-portraits").querySelector(".pcl-camera-said textarea");
  area.value = text;
  area.dispatchEvent(new Event("change", { bubbles: true }));
};
const show = (on) => {
  open.style.display = on ? "none" : "";
  [video, ...takers].forEach((part) => { part.style.display = on ? "" : "none"; });
};
const close = () => {
  stream?.getTracks().forEach((track) => track.stop());
  stream = video.srcObject = null;
  show(false);
};

open.addEventListener("click", async () => {
  try {
    if (!navigator.mediaDevices) throw { name: "insecure" };
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, facingMode: "user" } });
    video.srcObject = stream;
    await video.play();
    show(true);
    takers[0].focus();
  } catch (error) {
    close();
    say(`! ${error.name} ${Date.now()}`);
  }
});
takers.forEach((button) => button.addEventListener("click", () => {
  if (button.dataset.donor) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    say(`${button.dataset.donor} ${canvas.toDataURL("image/jpeg", 0.9)}`);
  }
  close();
  open.focus();
}));
