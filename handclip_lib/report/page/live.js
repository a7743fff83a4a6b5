for (const figure of document.querySelectorAll("figure.live")) {
  const controls = [...figure.querySelectorAll("select, input")];
  const frames = [...figure.querySelectorAll(".frame")];
  const order = figure.dataset.order.split(" ").map(Number);
  const show = () => {
    let place = 0;
    for (const control of controls) {
      if (control.options) {
        place = place * control.options.length + control.selectedIndex;
        continue;
      }
      const labels = control.dataset.labels.split("|");
      place = place * labels.length + Number(control.value);
      control.setAttribute("aria-valuetext", labels[control.value]);
      control.nextElementSibling.textContent = labels[control.value];
    }
    frames.forEach((frame, number) => { frame.hidden = number !== order[place]; });
  };
  figure.addEventListener("input", show);
  figure.querySelector(".controls").hidden = false;
  show();
}
