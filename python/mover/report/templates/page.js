// The only script of the page: one button between the light and the dark scheme, remembered where the browser allows it.
(function () {
  "use strict";
  const key = "mover-report-scheme";
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  function read() {
    try { return window.localStorage.getItem(key); } catch (error) { return null; }
  }

  function keep(scheme) {
    try { window.localStorage.setItem(key, scheme); } catch (error) { /* the choice lasts as long as the page */ }
  }

  const kept = read();
  if (kept === "light" || kept === "dark") root.dataset.scheme = kept;

  document.addEventListener("DOMContentLoaded", function () {
    const button = document.getElementById("scheme");
    const dark = () => (root.dataset.scheme ? root.dataset.scheme === "dark" : system.matches);
    const show = () => button.setAttribute("aria-pressed", String(dark()));
    button.hidden = false;
    show();
    system.addEventListener("change", show);
    button.addEventListener("click", function () {
      root.dataset.scheme = dark() ? "light" : "dark";
      keep(root.dataset.scheme);
      show();
    });
  });
})();
