// Elements, tables that are pictures, heat maps and lines. No library: these few functions are all the charts we need.

/** An element: h("p", { class: "note" }, "text", child). Text is always text, never markup. `onclick` and the like listen. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

export const button = (text, onclick, properties = {}) => h("button", { type: "button", onclick, ...properties }, text);
export const folded = (summary, ...children) => h("details", {}, h("summary", {}, summary), ...children);

/** A table under its title, in a box of its own that scrolls sideways and can be reached without a mouse. */
function titled(caption, kind, head, rows) {
  const table = h("table", { class: kind, "aria-label": caption }, h("thead", {}, head), h("tbody", {}, rows));
  const box = h("div", { class: "rxt-scroll", tabindex: 0, role: "group", "aria-label": caption }, table);
  return h("div", {}, h("p", { class: "rxt-title rxt-caption" }, caption), box);
}

/** Some of these, one of them chosen: radio buttons in a group with a name. */
export function choice(legend, name, options, chosen, onchange) {
  const radio = ([value, text]) =>
    h("label", {}, h("input", { type: "radio", name, value, checked: value === chosen, onchange: () => onchange(value) }), text);
  return h("fieldset", { class: "rxt-choice" }, h("legend", {}, legend), options.map(radio));
}

/**
 * A real table that is a picture as well: every cell is shaded from empty (share 0) to full (share 1), and says its
 * number to screen readers and on hover. Rows: { head, cells: [{ share, text, mark }] }; a mark is seen, too.
 */
export function grid({ caption, corner = "", columns, rows }) {
  const cell = ({ share, text, mark }) =>
    h("td", { style: `--share: ${share.toFixed(3)}`, title: text }, mark ? h("span", { "aria-hidden": true }, mark) : null,
      h("span", { class: "rxt-heard" }, text));
  const name = (text) => h("th", { scope: "col", class: text.length > 2 ? "rxt-upright" : null }, h("span", {}, text));
  const head = h("tr", {}, h("th", { scope: "col" }, corner), columns.map(name));
  return titled(caption, "rxt-grid", head, rows.map((row) => h("tr", {}, h("th", { scope: "row" }, row.head), row.cells.map(cell))));
}

/** A plain table of texts and numbers. */
export function plainTable(caption, columns, rows) {
  const head = h("tr", {}, columns.map((text) => h("th", { scope: "col" }, text)));
  return titled(caption, "rxt-table", head,
    rows.map(([first, ...rest]) => h("tr", {}, h("th", { scope: "row" }, first), rest.map((text) => h("td", {}, text)))));
}

const BELOW = [33, 102, 172], NONE = [247, 247, 247], ABOVE = [179, 88, 6]; // blue and orange: told apart by all eyes

/** A heat map of values (rows, columns) between -most and most; a pixel each, enlarged by the style sheet. */
export function heatMap(values, rows, columns, most, label) {
  const canvas = h("canvas", { width: columns, height: rows, role: "img", "aria-label": label, class: "rxt-heat" });
  const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
  values.forEach((value, i) => {
    const share = Math.min(1, Math.abs(value) / (most || 1)), end = value < 0 ? BELOW : ABOVE;
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = NONE[c] + share * (end[c] - NONE[c]);
    image.data[4 * i + 3] = 255;
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

const DASHES = ["", "7 4", "2 3", "9 3 2 3", "1 4"];

function svg(tag, properties, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Round numbers from 0 to `most`, or powers of ten between `least` and `most`. */
function ticks(least, most, log) {
  if (log) {
    const powers = [];
    for (let e = Math.ceil(Math.log10(least)); e <= Math.log10(most); e++) powers.push(10 ** e);
    return powers;
  }
  const step = [1, 2, 5, 10].map((m) => m * 10 ** Math.floor(Math.log10(most / 4 || 1))).find((s) => most / s <= 5);
  return Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, i) => i * step);
}

/**
 * Lines as a picture: series [{ name, points: [[x, y], ...] }] told apart by dashes and by names, `mark` an x to point at.
 * Stepped lines hold their value until the next point, as survival does.
 */
export function lines(series, { x: xName, y: yName, log = false, stepped = false, top = null, mark = null, label }) {
  const W = 560, H = 260, left = 64, bottom = 40, right = 12, above = 10;
  const all = series.flatMap(({ points }) => points), xs = all.map(([x]) => x), ys = all.map(([, y]) => y).filter((y) => !log || y > 0);
  const [x0, x1, y1] = [Math.min(...xs), Math.max(...xs), top ?? Math.max(...ys)], y0 = log ? Math.min(...ys) : 0;
  const up = log ? Math.log10 : (y) => y;
  const X = (x) => left + ((x - x0) / (x1 - x0 || 1)) * (W - left - right);
  const Y = (y) => H - bottom - ((up(Math.max(y, y0)) - up(y0)) / (up(y1) - up(y0) || 1)) * (H - bottom - above);
  const text = (x, y, content, anchor = "middle") => svg("text", { x, y, "text-anchor": anchor }, content);
  const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": label, class: "rxt-lines" });
  for (const y of ticks(y0, y1, log)) {
    picture.append(svg("line", { x1: left, x2: W - right, y1: Y(y), y2: Y(y), class: "rxt-rule" }), text(left - 6, Y(y) + 4, short(y), "end"));
  }
  for (const x of new Set([x0, Math.round((x0 + x1) / 2), x1])) picture.append(text(X(x), H - bottom + 18, x));
  picture.append(text((left + W) / 2, H - 4, xName), svg("text", { x: 14, y: (H - bottom) / 2, "text-anchor": "middle",
    transform: `rotate(-90 14 ${(H - bottom) / 2})` }, yName));
  if (mark !== null) picture.append(svg("line", { x1: X(mark), x2: X(mark), y1: above, y2: H - bottom, class: "rxt-mark" }));
  series.forEach(({ points }, i) => {
    const path = points.map(([x, y], n) => (n && stepped ? `H${X(x)}V${Y(y)}` : `${n ? "L" : "M"}${X(x)} ${Y(y)}`)).join("");
    picture.append(svg("path", { d: path, class: `rxt-line rxt-line-${i % 5}`, "stroke-dasharray": DASHES[i % 5] }));
  });
  const key = series.map(({ name }, i) => h("li", {}, svg("svg", { viewBox: "0 0 34 8", class: "rxt-key", "aria-hidden": "true" },
    svg("path", { d: "M1 4H33", class: `rxt-line rxt-line-${i % 5}`, "stroke-dasharray": DASHES[i % 5] })), name));
  return h("div", { class: "rxt-chart" }, picture, h("ul", { class: "rxt-legend" }, key));
}

/** 1234567 -> "1.2 M" */
export function short(value) {
  for (const [size, unit] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) if (value >= size) return `${+(value / size).toPrecision(3)}${unit}`;
  return `${+value.toPrecision(3)}`;
}
