// Before the first paint: the theme that was chosen last. Without a choice the style follows the system's.
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem("robolearn-theme"); } catch { /* storage is switched off */ }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
