"use strict";
const root = document.documentElement;
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const button = document.getElementById("theme");
const charts = JSON.parse(document.getElementById("charts").textContent);

const isDark = () => (root.dataset.theme ?? (prefersDark.matches ? "dark" : "light")) === "dark";

async function loadPlotly() {
  const packed = document.getElementById("plotly").textContent.trim();
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(plain).text();
  document.head.append(script);
}

function coloured(value, style) {
  if (typeof value === "string") {
    const name = /^var\((--[a-z]+)\)$/.exec(value);
    return name ? style.getPropertyValue(name[1]).trim() : value;
  }
  if (Array.isArray(value)) return value.map((one) => coloured(one, style));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, coloured(one, style)]));
}

async function draw() {
  const style = getComputedStyle(root);
  for (const [name, figure] of Object.entries(charts)) {
    const { data, layout } = coloured(figure, style);
    await Plotly.react(`chart-${name}`, data, layout, { displayModeBar: false, responsive: true });
  }
}

async function theme() {
  button.textContent = isDark() ? "Light" : "Dark";
  button.setAttribute("aria-label", `Use the ${isDark() ? "light" : "dark"} theme`);
  if (root.dataset.charts === "drawn") await draw();
}

async function start() {
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    theme();
  });
  prefersDark.addEventListener("change", theme);
  await theme();
  if (Object.keys(charts).length === 0) return;
  root.dataset.charts = "loading";
  try {
    await loadPlotly();
    await draw();
    root.dataset.charts = "drawn";
  } catch (error) {
    root.dataset.charts = "failed";
    document.getElementById("no-charts").hidden = false;
    throw error;
  }
}

start();
