// What is drawn of scores: ranking, the table of contributions, an audit's changes. Texts go in as texts, never as markup.
//
// In: rows that `weigh` gave, their letters.  Out: elements; `update…` writes new numbers into elements that are there.

import { decimal, percent, shorten, signed, verdict } from "./telling.js";
import { HIGHEST, LOWEST, factorAt, factorOf, factorText, isFixed, mustStay, placeOf } from "./profiles.js";

const LONGEST = 4000; // letters of a changed answer that are shown

export const byId = (id) => document.getElementById(id);

export function make(tag, facts = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(facts)) {
    if (name === "class") element.className = value;
    else if (name === "on") Object.entries(value).forEach(([event, act]) => element.addEventListener(event, act));
    else if (value === true) element.setAttribute(name, "");
    else if (value != null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

const aside = (text) => make("span", { class: "hidden" }, text);
const cell = (facts, ...children) => make("td", { role: "cell", ...facts }, ...children);
const head = (facts, ...children) => make("th", { role: facts.scope === "row" ? "rowheader" : "columnheader", ...facts }, ...children);
const line = (facts, ...children) => make("tr", { role: "row", ...facts }, ...children);
const group = (tag, ...children) => make(tag, { role: "rowgroup" }, ...children);

// What bars that stand together reach from and to, zero included.
function reachOf(values) {
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  return high > low ? { low, high } : { low: -1, high: 1 };
}

// A bar from zero: plus to the right, minus to the left and hatched.
function setBar(track, value, { low, high }) {
  const place = (x) => `${(100 * (x - low)) / (high - low)}%`;
  track.style.setProperty("--zero", place(0));
  track.firstChild.className = value >= 0 ? "plus" : "minus";
  track.firstChild.style.left = place(Math.min(value, 0));
  track.firstChild.style.width = place(low + Math.abs(value));
}

const bar = (kind) => make("span", { class: `track ${kind}`, "aria-hidden": "true" }, make("i"));

export function ranking(order) {
  const reach = reachOf(order.map((one) => one.score));
  return order.map(({ letter, score, std, place }) => {
    const track = bar("both");
    setBar(track, score, reach);
    const unsure = std == null ? "" : ` ± ${decimal(std)}`;
    return make("li", place === 1 ? { class: "first" } : {},
      make("span", { class: "soft" }, placeText(place)), make("b", { class: "letter" }, letter), track, make("span", { class: "value" }, decimal(score), make("span", { class: "soft" }, unsure)));
  });
}

export const placeText = (place) => `${place}${["th", "st", "nd", "rd"][place % 100 > 10 && place % 100 < 14 ? 0 : place % 10] ?? "th"}`;

// -- the table of contributions ------------------------------------------------------------------------------------------------

// One row a term: its weight, its slider, and a bar for each answer and for the difference of two.
export class Contributions {
  constructor(table, { basis, letters, order, labels, onFactor }) {
    this.basis = basis;
    this.letters = letters;
    this.rows = [...order, ...labels].map((name) => this.row(name, onFactor));
    this.pairHead = make("span");
    this.totals = [...letters.map(() => make("span", { class: "value" })), make("span", { class: "value" })];
    this.heads = letters.map((letter) => head({ scope: "col" }, make("span", { class: "column" }, make("b", { class: "letter" }, letter), aside(`answer ${letter}: `), "reward and its part")));
    const heads = [head({ scope: "col" }, "Objective"), head({ scope: "col" }, "Weight for this prompt"), head({ scope: "col" }, "How much it counts"), ...this.heads];
    if (letters.length > 1) heads.push(head({ scope: "col" }, this.pairHead));
    const last = this.totals.slice(0, letters.length > 1 ? undefined : -1).map((total, i) => {
      const plain = i === letters.length ? "cell plain" : "cell";
      return cell({ "data-letter": letters[i] ?? "Diff." }, make("span", { class: plain }, ...(i < letters.length ? [make("span")] : []), make("span"), total));
    });
    table.replaceChildren(
      group("thead", line({}, ...heads)),
      group("tbody", ...this.rows.map((row) => row.element)),
      group("tfoot", line({}, head({ scope: "row" }, "Score"), cell({ class: "empty" }), cell({ class: "empty" }), ...last)),
    );
  }

  row(name, onFactor) {
    const isObjective = this.basis.names.includes(name);
    const weight = isObjective ? { track: bar("share"), text: make("span", { class: "value" }), tick: make("b") } : null;
    weight?.track.append(weight.tick);
    const count = isObjective ? this.slider(name, onFactor) : null;
    const bars = this.letters.map(() => ({ reward: make("span", { class: "reward" }), track: bar("both"), text: make("span", { class: "value" }) }));
    const gap = { track: bar("both"), text: make("span", { class: "value" }) };
    const cells = bars.map((b, i) => cell({ "data-letter": this.letters[i] }, make("span", { class: "cell" }, b.reward, b.track, b.text)));
    if (this.letters.length > 1) cells.push(cell({ "data-letter": "Diff." }, make("span", { class: "cell plain" }, gap.track, gap.text)));
    const element = line({ "data-term": name },
      head({ scope: "row" }, name),
      cell(weight ? {} : { class: "empty" }, weight && make("span", { class: "weight" }, weight.track, weight.text)),
      cell(count ? {} : { class: "empty" }, count?.element),
      ...cells);
    return { name, isObjective, weight, count, bars, gap, element };
  }

  slider(name, onFactor) {
    const input = make("input", { type: "range", min: LOWEST, max: HIGHEST, step: 1, "aria-label": `How much ${name} counts` });
    const output = make("output");
    input.addEventListener("input", () => onFactor(name, factorAt(Number(input.value))));
    return { input, output, element: make("span", { class: "count" }, input, output) };
  }

  // Weights that give no score: the sliders alone say something.
  clear(profile) {
    this.heads.forEach((element) => element.classList.remove("first"));
    this.rows.filter((row) => row.isObjective).forEach((row) => {
      updateCount(row, profile);
      row.count.input.setAttribute("aria-valuetext", row.count.output.textContent);
    });
  }

  // `weighed`: what `weigh` gave for each answer, null where it has no score; `pair`: the two that are compared.
  update({ profile, weighed, trained, gap, pair, places }) {
    const known = weighed.filter(Boolean);
    const reach = reachOf([...known.flatMap((w) => w.contributions), ...(gap?.deltas ?? [])]);
    const most = Math.max(1e-12, ...known[0].gate, ...trained);
    this.rows.forEach((row) => {
      const at = known[0].names.indexOf(row.name);
      if (row.isObjective) this.updateWeight(row, profile, known[0].gate[at], trained[at], most);
      row.bars.forEach((b, i) => updateBar(b, weighed[i], at, reach));
      const delta = gap ? gap.deltas[at] : 0;
      setBar(row.gap.track, delta, reach);
      row.gap.text.textContent = gap ? signed(delta) : "–";
    });
    this.heads.forEach((element, i) => element.classList.toggle("first", places[i] === 1));
    this.letters.forEach((_, i) => (this.totals[i].textContent = weighed[i] ? decimal(weighed[i].score) : "–"));
    this.totals.at(-1).textContent = gap ? signed(gap.delta) : "–";
    this.pairHead.textContent = `${this.letters[pair[0]]} − ${this.letters[pair[1]]}`;
  }

  updateWeight(row, profile, weight, trained, most) {
    row.weight.track.firstChild.style.width = `${(100 * weight) / most}%`;
    row.weight.tick.style.left = `calc(${(100 * trained) / most}% - 1px)`;
    row.weight.tick.hidden = Math.abs(weight - trained) < 5e-4;
    row.weight.text.textContent = percent(weight, weight < 0.0995 ? 1 : 0);
    updateCount(row, profile);
    row.count.input.setAttribute("aria-valuetext", `${row.count.output.textContent}, weight ${percent(weight)}`);
  }
}

function updateCount({ name, count: { input, output, element } }, profile) {
  const factor = factorOf(profile, name);
  const fixed = isFixed(profile, name);
  input.min = mustStay(profile, name) ? LOWEST + 1 : LOWEST;
  if (Number(input.value) !== placeOf(factor)) input.value = placeOf(factor);
  input.disabled = fixed;
  output.textContent = fixed ? "fixed" : factorText(factor);
  element.classList.toggle("moved", factor !== 1);
}

function updateBar({ reward, track, text }, weighed, at, reach) {
  const known = weighed !== null && weighed !== undefined;
  setBar(track, known ? weighed.contributions[at] : 0, reach);
  reward.textContent = known ? decimal(weighed.terms[at], Math.abs(weighed.terms[at]) < 10 ? 2 : 0) : "–";
  text.textContent = known ? signed(weighed.contributions[at]) : "–";
}

// -- an audit's changes --------------------------------------------------------------------------------------------------------

export class Changes {
  constructor(table, changes) {
    this.rows = changes.map((change) => {
      const track = bar("both");
      const [shift, score, said] = [make("span", { class: "value" }), make("span"), make("span")];
      const shown = make("details", {}, make("summary", {}, "The changed answer"), make("blockquote", { dir: "auto", tabindex: "0" }, shorten(change.answer, LONGEST)));
      const fault = change.result.error && make("p", { class: "odd" }, `No score: ${change.result.error.message}`);
      const element = line({ "data-change": change.name },
        head({ scope: "row", class: "what" }, make("b", {}, change.label), make("br"), make("span", { class: "soft" }, change.what), fault, shown),
        cell({ "data-letter": "Change" }, make("span", { class: "cell plain" }, track, shift)),
        cell({ "data-letter": "Score" }, score),
        cell({ "data-letter": "Verdict" }, said));
      return { change, track, shift, score, said, element };
    });
    table.replaceChildren(
      group("thead", line({}, ...["What is done", "Change of the score", "Score after it", "Verdict"].map((text) => head({ scope: "col" }, text)))),
      group("tbody", ...this.rows.map((row) => row.element)),
    );
  }

  // `found`: for each change its difference to the answer as it is, null where it has no score.
  update(found) {
    const reach = reachOf(found.map((d) => d?.delta ?? 0));
    this.rows.forEach((row, i) => {
      const d = found[i];
      setBar(row.track, d?.delta ?? 0, reach);
      row.shift.textContent = d ? signed(d.delta) : "–";
      row.score.textContent = d ? decimal(d.scores[0]) : "–";
      const told = d && verdict(d, row.change.expected);
      row.said.textContent = told ? `${told.sign} ${told.text}` : "–";
      row.said.className = told?.odd ? "odd" : "";
    });
  }
}
