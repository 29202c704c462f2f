// Before the first paint: the theme that was chosen in this browser, if any. The switch is in js/frame.js.
const chosenTheme = localStorage.getItem("preflab-theme");
if (chosenTheme) document.documentElement.dataset.theme = chosenTheme;
