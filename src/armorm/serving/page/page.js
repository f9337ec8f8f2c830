// The page: asks the server once for columns, then weighs them anew with every move of a slider.
//
// In: a prompt and answers that someone typed, loaded or got in a link.  Out: scores, their parts, and what makes the difference.
// Cost: a pass of the decoder for "Score", for the probability of a pair, and for an audit; none for sliders and profiles.

import { Failure, ask, setKey } from "./ask.js";
import { Changes, Contributions, byId, make, placeText, ranking } from "./drawing.js";
import * as link from "./link.js";
import { AS_TRAINED, wishes, withFactor } from "./profiles.js";
import { count, decimal, difference, percent, sentence } from "./telling.js";
import { infeasible, label, readBasis, readRow, steers, weigh } from "./weighing.js";

const MOST_ANSWERS = 12;
const LETTERS = "ABCDEFGHIJKL";
const OWN = "own";

let basis = null;
let profile = AS_TRAINED;
let scored = null; // { messages, answers: [{ text, result, row }] }: what the last scores are of
let audited = null; // { at, original, changes, rows }: of the answer at that place
let pair = null; // the two that are compared; the first and the second until someone chooses
let table = null;
let changes = null;
let running = null;
const likely = new Map(); // of pairs that the server was asked about

// -- what is asked -------------------------------------------------------------------------------------------------------------

const cards = () => [...byId("answers").children];
const textOf = (card) => card.querySelector("textarea").value;
const messages = () => {
  const system = byId("system").value.trim() ? [{ role: "system", content: byId("system").value }] : [];
  return [...system, { role: "user", content: byId("prompt").value }];
};

function addAnswer(text = "") {
  if (cards().length >= MOST_ANSWERS) return say(`At most ${MOST_ANSWERS} answers stand side by side: POST /v1/rewards takes more.`);
  const card = byId("answer").content.firstElementChild.cloneNode(true);
  const area = card.querySelector("textarea");
  area.value = text;
  area.addEventListener("input", onEdit);
  card.querySelector(".away").addEventListener("click", () => removeAnswer(card));
  card.querySelector(".check").addEventListener("click", () => audit(card));
  byId("answers").append(card);
  nameCards();
  return card;
}

function removeAnswer(card) {
  card.remove();
  if (!cards().length) addAnswer();
  nameCards();
  forget();
  byId("add").focus();
}

function nameCards() {
  cards().forEach((card, i) => {
    const letter = LETTERS[i];
    card.querySelector(".letter").textContent = letter;
    card.querySelector("textarea").setAttribute("aria-label", `Answer ${letter}`);
    card.querySelector(".check").setAttribute("aria-label", `Audit answer ${letter}`);
    card.querySelector(".away").setAttribute("aria-label", `Remove answer ${letter}`);
    card.querySelector(".away").hidden = cards().length === 1;
  });
  byId("add").disabled = cards().length >= MOST_ANSWERS;
}

// What was scored no longer stands on the page: what is still asked about it may not come back to it.
function forget() {
  running?.abort();
  likely.clear();
  dropAudit();
  [scored, table, pair] = [null, null, null];
  byId("scores").hidden = byId("link").hidden = true;
  say("");
  cards().forEach((card) => {
    card.classList.remove("first", "stale");
    card.querySelector(".rank").textContent = card.querySelector(".points").textContent = card.querySelector(".facts").textContent = "";
    card.querySelector(".trouble").hidden = true;
    card.querySelector(".check").disabled = true;
  });
}

// Whether the answer at a place, or what it answers, is no longer what was scored.
function isStale(card, at) {
  return textOf(card) !== scored?.answers[at]?.text || JSON.stringify(messages()) !== JSON.stringify(scored.messages);
}

// Why the weights give no score, if they give none.
const unscorable = () => infeasible(profile, basis.names);

function markStale() {
  if (!scored) return;
  const fault = unscorable();
  cards().forEach((card, i) => {
    const answer = scored.answers[i];
    const stale = isStale(card, i);
    card.classList.toggle("stale", Boolean(answer) && stale);
    card.querySelector(".check").disabled = !answer?.row || stale || Boolean(fault);
    if (stale && audited?.at === i) dropAudit();
  });
}

function dropAudit() {
  [audited, changes] = [null, null];
  byId("audit").hidden = true;
}

function onEdit() {
  markStale();
  if (byId("key").hidden) hideFault();
}

async function run(doing, work) {
  running?.abort();
  const mine = (running = new AbortController());
  byId("score").textContent = "Stop";
  say(doing);
  hideFault();
  try {
    say((await work(mine.signal)) ?? "");
  } catch (fault) {
    if (running !== mine) return;
    say(fault.name === "AbortError" ? "Stopped." : "");
    if (fault.name !== "AbortError") showFault(fault);
  } finally {
    if (running === mine) {
      running = null;
      byId("score").textContent = "Score";
    }
  }
}

async function score() {
  const texts = cards().map(textOf);
  const empty = texts.findIndex((text) => !text.trim());
  if (!byId("prompt").value.trim()) return refuse(byId("prompt"), "Write what was asked first.");
  if (empty >= 0) return refuse(cards()[empty].querySelector("textarea"), `Answer ${LETTERS[empty]} is empty: fill it in, or remove it.`);
  await run("Scoring …", async (signal) => {
    const asked = messages();
    basis ??= await loadBasis(signal);
    const reply = await ask("v1/rewards", { messages: asked, answers: texts, profile: AS_TRAINED, details: true }, signal);
    scored = { messages: asked, answers: reply.results.map((result, i) => ({ text: texts[i], result, row: result.error ? null : readRow(basis, result) })) };
    dropAudit();
    likely.clear();
    choosePair();
    rebuild();
    return told();
  });
}

function refuse(field, text) {
  say(text);
  field.focus();
}

function told() {
  const fault = unscorable();
  if (fault) return `Scored, but nothing is shown: ${fault}`;
  const [best] = order();
  if (!best) return "No answer has a score.";
  const n = scored.answers.filter((answer) => answer.row).length;
  return n === 1 ? `Scored: ${decimal(best.score)}.` : `Scored ${n} answers: ${best.letter} is first.`;
}

async function loadBasis(signal) {
  const found = readBasis(await ask("v1/basis", undefined, signal));
  byId("model").textContent = found.model;
  fillProfiles(found);
  if (profile === AS_TRAINED && found.profile) profile = found.profile;
  showProfile();
  return found;
}

async function audit(card) {
  const at = cards().indexOf(card);
  const { text, row } = scored?.answers[at] ?? {};
  if (!row) return;
  await run(`Auditing ${LETTERS[at]} …`, async (signal) => {
    const reply = await ask("v1/audit", { messages: scored.messages, answer: text, profile: AS_TRAINED }, signal);
    if (isStale(card, at)) return "The answer was edited meanwhile: score it, and audit it again.";
    const rows = reply.changes.map(({ result }) => (result.error ? null : readRow(basis, result)));
    audited = { at, original: readRow(basis, reply.original), changes: reply.changes, rows };
    changes = new Changes(byId("changes"), reply.changes);
    byId("audit-head").textContent = `Audit of answer ${LETTERS[at]}`;
    const left = reply.inapplicable.map((change) => change.label);
    byId("inapplicable").textContent = left.length ? `Not tried, for it does not apply to this answer: ${left.join(", ")}.` : "";
    byId("audit").hidden = false;
    drawAudit();
    byId("audit").scrollIntoView({ block: "start" });
    byId("audit").focus({ preventScroll: true });
    const odd = byId("changes").querySelectorAll(".odd").length;
    return `Audited ${LETTERS[at]}: ${odd} of ${reply.changes.length} changes move the score as they should not.`;
  });
}

// -- what is shown -------------------------------------------------------------------------------------------------------------

const rowsOf = () => scored.answers.map((answer) => answer.row);
const weighedRows = () => rowsOf().map((row) => row && weigh(basis, row, profile));

function order(weighed = weighedRows()) {
  const known = weighed.flatMap((w, i) => (w ? [{ i, letter: LETTERS[i], score: w.score, std: steers(profile) ? null : scored.answers[i].result.std }] : []));
  known.sort((a, b) => b.score - a.score);
  known.forEach((one, at) => (one.place = at > 0 && one.score === known[at - 1].score ? known[at - 1].place : at + 1));
  return known;
}

function choosePair() {
  const known = order().map((one) => one.i);
  if (pair?.every((i) => known.includes(i)) && pair[0] !== pair[1]) return;
  pair = [known[0] ?? 0, known[1] ?? known[0] ?? 0];
}

// The table anew: other answers, or other constraints.
function rebuild() {
  const known = rowsOf().filter(Boolean);
  byId("scores").hidden = !known.length;
  drawCards();
  if (!known.length) return;
  const letters = scored.answers.map((_, i) => LETTERS[i]);
  const trained = known.map((row) => weigh(basis, row, AS_TRAINED));
  const size = (name) => Math.max(...trained.map((w) => Math.abs(w.contributions[basis.terms.indexOf(name)])));
  const largest = [...basis.names].sort((a, b) => size(b) - size(a));
  const labels = (profile.constraints ?? []).map(label);
  table = new Contributions(byId("table"), { basis, letters, order: [...largest, ...basis.computed], labels, onFactor });
  fillPair(letters);
  draw();
}

function draw() {
  showProfile();
  if (!scored || !table) return;
  const fault = unscorable();
  byId("refused").textContent = fault;
  byId("refused").hidden = !fault;
  byId("scores").classList.toggle("unscored", Boolean(fault));
  if (fault) {
    drawCards(rowsOf().map(() => null), []); // weights that give no score leave none standing
    return table.clear(profile);
  }
  const weighed = weighedRows();
  const ranked = order(weighed);
  const places = scored.answers.map((_, i) => ranked.find((one) => one.i === i)?.place);
  const two = pair[0] !== pair[1];
  const gap = two ? difference(weighed[pair[0]], weighed[pair[1]]) : null;
  byId("ranking").replaceChildren(...ranking(ranked));
  byId("pair").hidden = !two;
  if (gap) byId("sentence").textContent = sentence(gap, LETTERS[pair[0]], LETTERS[pair[1]]).replaceAll(" %", "\u00a0%");
  table.update({ profile, weighed, trained: rowsOf().find(Boolean).gate, gap, pair, places });
  byId("legend").textContent = legend();
  drawCards(weighed, ranked);
  drawAudit();
  sayHowSure();
}

function drawCards(weighed = weighedRows(), ranked = order(weighed)) {
  cards().forEach((card, i) => {
    const { result, row } = scored.answers[i] ?? {};
    const mine = ranked.find((one) => one.i === i);
    card.classList.toggle("first", mine?.place === 1 && ranked.length > 1);
    card.querySelector(".rank").textContent = mine && ranked.length > 1 ? placeText(mine.place) : "";
    const unsure = mine?.std == null ? [] : [make("small", {}, ` ± ${decimal(mine.std)}`)];
    card.querySelector(".points").replaceChildren(...(mine ? [decimal(mine.score), ...unsure] : []));
    card.querySelector(".facts").textContent = row ? factsOf(result) : "";
    const trouble = card.querySelector(".trouble");
    const said = result?.error ? `No score: ${result.error.message}` : result?.truncated ? "Too long for the model: its oldest part was cut, so the score is of the rest." : "";
    trouble.textContent = said;
    trouble.hidden = !said;
  });
  markStale();
}

function factsOf(result) {
  const parts = result.tokens == null ? [] : [`${count(result.tokens)} ${result.tokens === 1 ? "token" : "tokens"}`];
  if (steers(profile)) parts.push(`${decimal(result.score)}${result.std == null ? "" : ` ± ${decimal(result.std)}`} as trained`);
  return parts.join(" · ");
}

function legend() {
  const notes = ["Rewards are predicted ratings on a scale from 0 to 1; a bar is reward times coefficient, right of the line for plus, left and hatched for minus. The bars of a column sum to its score."];
  notes.push("Debiasing hands weight on to what it takes out, such as verbosity or length, so that a term of little weight may count.");
  if (basis.computed.length) notes.push(`Not rated but counted: ${basis.computed.join(", ")}.`);
  if (steers(profile)) notes.push("The dark tick on a weight is where the gate had it. How far a score may be off (±) is known for the weights as trained alone.");
  return notes.join(" ");
}

function drawAudit() {
  if (!audited) return;
  const before = weigh(basis, audited.original, profile);
  changes.update(audited.rows.map((row) => row && difference(weigh(basis, row, profile), before)));
}

function fillPair(letters) {
  [byId("one"), byId("other")].forEach((select, side) => {
    select.replaceChildren(...letters.flatMap((letter, i) => (scored.answers[i].row ? [make("option", { value: i }, letter)] : [])));
    select.value = pair[side];
  });
}

function onPair(side, value) {
  const other = pair[1 - side];
  pair[side] = value;
  if (other === value) pair[1 - side] = rowsOf().findIndex((row, i) => row && i !== value);
  [byId("one").value, byId("other").value] = pair;
  draw();
}

// How likely the better of two is the better one: the server knows, for the weights as trained.
async function sayHowSure() {
  const sure = byId("sure");
  if (pair[0] === pair[1]) return (sure.textContent = "");
  if (steers(profile)) return (sure.textContent = "How sure that is, is known for the weights as trained alone.");
  const [a, b] = pair;
  const key = `${a} ${b}`;
  const { messages: asked, answers } = scored;
  if (!likely.has(key)) {
    likely.set(key, ask("v1/compare", { messages: asked, a: answers[a].text, b: answers[b].text, profile: AS_TRAINED }).catch((fault) => ({ probability: null, note: fault.message })));
  }
  const question = likely.get(key);
  const reply = await question;
  // by now other answers may be scored, none, or two others compared
  if (likely.get(key) === question && pair.join(" ") === key && !steers(profile)) sure.textContent = howSure(reply, LETTERS[a], LETTERS[b]);
}

function howSure({ probability, note }, a, b) {
  if (probability == null) return note ? `No probability: ${note}.` : "This model does not know how often it is right.";
  if (probability === 0.5) return `The probability that ${a} is better than ${b} is 50 %: a toss of a coin.`;
  const chance = Math.max(probability, 1 - probability);
  return `The probability that ${probability > 0.5 ? a : b} is the better one is ${percent(chance, chance > 0.99 ? 1 : 0)}, as calibrated on held-out pairs.`;
}

// -- weights -------------------------------------------------------------------------------------------------------------------

function onFactor(name, factor) {
  const before = steers(profile) || profile.name !== AS_TRAINED.name ? profile : { name: "mine" };
  profile = withFactor(before, name, factor);
  draw();
}

function setProfile(wanted) {
  profile = wanted;
  if (scored) rebuild();
  else showProfile();
}

const offered = () => (basis ? [AS_TRAINED, ...(basis.profile ? [basis.profile] : []), ...Object.values(basis.profiles)] : [AS_TRAINED]);

function fillProfiles(found) {
  const named = [["As trained", "0"], ...(found.profile ? [[`${found.profile.name} (the model’s own)`, "1"]] : [])];
  const rest = Object.keys(found.profiles).map((name, i) => [name, String(named.length + i)]);
  byId("profile").replaceChildren(...[...named, ...rest, ["Own weights", OWN]].map(([text, value]) => make("option", { value, hidden: value === OWN }, text)));
}

function showProfile() {
  const same = offered().findIndex((one) => one === profile || JSON.stringify(one) === JSON.stringify(profile));
  byId("profile").value = same >= 0 ? String(same) : OWN;
  if (document.activeElement !== byId("name")) byId("name").value = profile === AS_TRAINED ? "" : profile.name;
  byId("wishes").replaceChildren(...wishes(profile).map(({ text, rest }) =>
    make("li", {}, text, make("button", { type: "button", "aria-label": `Remove: ${text}`, on: { click: () => setProfile(rest) } }, "×"))));
}

async function load(file) {
  if (!file) return;
  await run("Reading the profile …", async (signal) => {
    if (file.size > 1e6) throw new Failure("That file is larger than a megabyte, which no profile is.");
    basis ??= await loadBasis(signal);
    const name = file.name.replace(/\.\w+$/, "") || "mine";
    const reply = await ask("v1/profiles/check", { text: await file.text(), name }, signal);
    setProfile(reply.profile);
    return `Weighed by the profile ${reply.profile.name}.`;
  });
}

async function save() {
  await run("Checking the profile …", async (signal) => {
    const name = byId("name").value.trim() || "mine";
    const reply = await ask("v1/profiles/check", { profile: { ...profile, name } }, signal);
    const url = URL.createObjectURL(new Blob([reply.yaml], { type: "application/yaml" }));
    const file = `${name.replace(/[^\p{L}\p{N}._-]+/gu, "-")}.yaml`;
    make("a", { href: url, download: file }).click();
    URL.revokeObjectURL(url);
    profile = reply.profile;
    draw();
    return `Saved: armorm explain … --profile ${file} weighs as this page does.`;
  });
}

// -- links, faults, keys -------------------------------------------------------------------------------------------------------

async function copyLink() {
  const state = { v: 1, prompt: byId("prompt").value, system: byId("system").value, answers: cards().map(textOf), profile, pair };
  const hash = await link.write(state);
  if (hash === null) return say("These texts are too long for a link: send them as a file.");
  history.replaceState(null, "", `#${hash}`);
  byId("link").hidden = false;
  byId("link-text").value = location.href;
  await navigator.clipboard?.writeText(location.href).then(() => say("Link copied."), () => byId("link-text").select());
}

async function restore() {
  let state;
  try {
    state = await link.read(location.hash);
  } catch {
    return showFault(new Failure("This link is damaged: what it carries can't be read. Ask for it again."));
  }
  if (!state) return;
  byId("prompt").value = state.prompt;
  byId("system").value = state.system;
  byId("system-part").open = Boolean(state.system);
  byId("answers").replaceChildren();
  state.answers.slice(0, MOST_ANSWERS).forEach((text) => addAnswer(text));
  forget();
  await run("Opening the link …", async (signal) => {
    basis ??= await loadBasis(signal);
    if (state.profile) profile = (await ask("v1/profiles/check", { profile: state.profile }, signal)).profile;
    if (!steers(profile)) profile = AS_TRAINED;
  });
  pair = state.pair ?? pair;
  if (basis && byId("fault").hidden) await score();
}

const say = (text) => (byId("status").textContent = text);
const hideFault = () => (byId("fault").hidden = true);

function showFault(fault) {
  const id = fault.id ? ` (request ${fault.id})` : "";
  byId("fault-text").textContent = fault instanceof Failure ? `${fault.message}${id}` : `This page has a fault: ${fault.message}`;
  byId("key").hidden = ![401, 403].includes(fault.status);
  byId("fault").hidden = false;
  (byId("key").hidden ? byId("fault") : byId("key-text")).scrollIntoView({ block: "nearest" });
  if (!byId("key").hidden) byId("key-text").focus();
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  byId("theme").value = theme;
}

// What the browser keeps of it, where it keeps anything.
function keptTheme(theme) {
  try {
    if (theme !== undefined) localStorage.setItem("armorm-theme", theme);
    return localStorage.getItem("armorm-theme") ?? "";
  } catch {
    return theme ?? "";
  }
}

// -- begin ---------------------------------------------------------------------------------------------------------------------

const start = () => run("", async (signal) => void (basis ??= await loadBasis(signal)));

byId("asked").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.abort();
  else score();
});
byId("key").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(byId("key-text").value);
  hideFault();
  start().then(restore);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    score();
  }
});
byId("add").addEventListener("click", () => addAnswer()?.querySelector("textarea").focus());
["prompt", "system"].forEach((id) => byId(id).addEventListener("input", onEdit));
byId("one").addEventListener("change", (event) => onPair(0, Number(event.target.value)));
byId("other").addEventListener("change", (event) => onPair(1, Number(event.target.value)));
byId("profile").addEventListener("change", (event) => setProfile(offered()[Number(event.target.value)] ?? profile));
byId("reset").addEventListener("click", () => setProfile(basis?.profile ?? AS_TRAINED));
byId("load").addEventListener("change", (event) => load(event.target.files[0]).finally(() => (event.target.value = "")));
byId("save").addEventListener("click", save);
byId("copy").addEventListener("click", copyLink);
byId("theme").addEventListener("change", (event) => setTheme(keptTheme(event.target.value)));
window.addEventListener("hashchange", restore);
if (/Mac|iPhone|iPad/.test(navigator.platform)) byId("shortcut").textContent = "⌘ + Enter";

setTheme(keptTheme());
addAnswer();
addAnswer();
await start();
await restore();
