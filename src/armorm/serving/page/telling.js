// Numbers and differences in words, as src/armorm/numbers.py and src/armorm/scoring/explain.py tell them.
//
// In: numbers, two rows that `weigh` gave.  Out: short texts; undefined is a dash, minus is "−", a rounded zero has no sign.

const NO_DIFFERENCE = 1e-3;
const WORTH_NAMING = 0.05;
const CANCELLING = 5;
const SAME_WEIGHTS = 1e-4;
const HARDLY = 0.02; // of Σ |contribution|: less is the decoder's rounding, or hardly worth a word

const sum = (values) => values.reduce((total, value) => total + value, 0);
const minus = (text) => (/[1-9]/.test(text) ? text.replace("-", "−") : text.replace(/^[+-]+/, ""));
const write = (value, form) => (Number.isFinite(value) ? minus(form(value)) : "–");

export const decimal = (value, digits = 3) => write(value, (x) => x.toFixed(digits));
export const signed = (value, digits = 3) => write(value, (x) => (x >= 0 ? "+" : "") + x.toFixed(digits));
export const percent = (value, digits = 0) => write(value, (x) => `${(100 * x).toFixed(digits)} %`);
export const count = (value) => write(value, (x) => x.toLocaleString("en-US"));
export const listed = (parts) => (parts.length > 1 ? `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}` : (parts[0] ?? ""));
export const shorten = (text, longest) => (text.length <= longest ? text : `${text.slice(0, longest - 1).trimEnd()}…`);

// Score of `a` minus score of `b`, term by term: the largest first, each with its share of the whole.
export function difference(a, b) {
  const deltas = a.contributions.map((c, i) => c - b.contributions[i]);
  const delta = sum(deltas);
  const size = sum([...a.contributions, ...b.contributions].map(Math.abs)) / 2;
  const toSpeakOf = Math.abs(delta) > NO_DIFFERENCE * size;
  const largest = Math.max(0, ...a.coefficients.map(Math.abs));
  const terms = deltas.map((change, i) => ({
    term: a.names[i],
    delta: change,
    share: toSpeakOf ? change / delta : null,
    byWeights: ((a.terms[i] + b.terms[i]) / 2) * (a.coefficients[i] - b.coefficients[i]),
  }));
  return {
    delta,
    size,
    deltas,
    toSpeakOf,
    sameWeights: a.coefficients.every((c, i) => Math.abs(c - b.coefficients[i]) <= SAME_WEIGHTS * largest),
    terms: terms.sort((one, other) => Math.abs(other.delta) - Math.abs(one.delta)),
    scores: [a.score, b.score],
  };
}

// What one would say of it: "A scores 0.213 higher than B; 72 % of the difference is safety."
export function sentence(d, a, b) {
  if (!d.toSpeakOf) {
    return `${a} and ${b} score alike (${d.scores.map((s) => decimal(s)).join(" and ")}): no difference to speak of.`;
  }
  let text = `${a} scores ${decimal(Math.abs(d.delta))} ${d.delta > 0 ? "higher" : "lower"} than ${b}${reasons(d)}`;
  if (!d.sameWeights) {
    const part = sum(d.terms.map((t) => t.byWeights)) / d.delta;
    text += `. The two were weighed differently, which makes ${percent(part)} of the difference`;
  }
  return `${text}.`;
}

function reasons(d) {
  const named = d.terms.filter((t) => Math.abs(t.share) >= WORTH_NAMING);
  const withIt = named.filter((t) => t.share > 0).slice(0, 3);
  const against = named.filter((t) => t.share < 0).slice(0, 3);
  if (!withIt.length) return "; no single objective makes much of it";
  if (sum(d.terms.map((t) => Math.abs(t.share))) > CANCELLING) {
    const [one, other] = [withIt, against].map((side) => listed(side.map((t) => `${t.term} (${signed(t.delta)})`)));
    return `: larger differences nearly cancel, ${one} on one side, ${other} on the other`;
  }
  const [first, ...rest] = withIt;
  const head = `${percent(first.share)} of the difference is ${first.term}`;
  const text = `; ${listed([head, ...rest.map((t) => `${percent(t.share)} ${t.term}`)])}`;
  if (!against.length) return text;
  const told = listed(against.map((t) => `${t.term} (${percent(t.share)})`));
  return `${text}; ${told} ${against.length === 1 ? "speaks" : "speak"} against it`;
}

// What a change of an answer did to its score, beside what was expected of it. `odd`: how a good reward model does not behave.
export function verdict(d, expected) {
  if (Math.abs(d.delta) <= HARDLY * d.size) return expected === "same" ? { sign: "=", text: "holds, as it should" } : { sign: "=", text: "not noticed", odd: true };
  if (d.delta > 0) return { sign: "▲", text: "gains: paid for nothing", odd: true };
  return { sign: "▼", text: expected === "worse" ? "falls, as it should" : "falls: nothing to be gained" };
}
