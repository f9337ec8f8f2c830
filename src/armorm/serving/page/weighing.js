// Steering in the browser: what a profile does to columns that are there already, as src/armorm/scoring/steer.py does it.
//
// In: the model's basis (GET /v1/basis), a row of rewards, computed nuisances and gate weights, a profile.
// Out: the row's score with its weights, coefficients and contributions.  Cost: a sort of 2k numbers a row; no decoder.

export const LEAST = 1e-12;
const TOLERANCE = 1e-9;
const PENALTY = 10;

const sum = (values) => values.reduce((total, value) => total + value, 0);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const value = (of, name, missing) => (of && Object.hasOwn(of, name) ? of[name] : missing);
const column = (of, names, missing) => names.map((name) => value(of, name, missing));
const filled = (of) => Object.keys(of ?? {}).length > 0;

export const steersGate = (p) => Boolean(p.drop?.length) || ["weights", "scale", "floor", "cap", "fix"].some((key) => filled(p[key]));
export const steers = (p) => steersGate(p) || Boolean(p.constraints?.length) || filled(p.nuisances);

// A number as Python's format "g" writes it: six significant digits.
function general(number) {
  const [digits, power] = number.toExponential(5).split("e");
  if (number !== 0 && (Number(power) < -4 || Number(power) >= 6)) {
    return `${Number(digits)}e${power[0]}${power.slice(1).padStart(2, "0")}`;
  }
  return String(Number(number.toPrecision(6)));
}

export const label = (c) =>
  c.at_least != null ? `${c.objective} at least ${general(c.at_least)}` : `${c.objective} at most ${general(c.at_most ?? 0)}`;

// Why a profile's weights can't hold together ("" where they can); the server says the rest before a profile gets here.
export function infeasible(profile, names) {
  const taken = new Set([...(profile.drop ?? []), ...Object.keys(profile.fix ?? {})]);
  const free = names.filter((name) => !taken.has(name));
  const fixed = sum(Object.values(profile.fix ?? {}));
  if (!free.length && Math.abs(fixed - 1) > TOLERANCE) return "No objective is left to take the weight: move a slider up.";
  const least = sum(free.map((name) => value(profile.floor, name, 0)));
  if (fixed + least > 1 + TOLERANCE) return "Fixed weights and floors sum to more than the whole.";
  if (free.length && fixed + sum(free.map((name) => value(profile.cap, name, 1))) < 1 - TOLERANCE) {
    return "Caps leave weight that no other objective may take: move a slider up, or remove a cap.";
  }
  return "";
}

// Weights in proportion to `base` within bounds that sum to `total`: min(max(λ base, lower), upper), λ found exactly.
export function fill(base, lower, upper, total) {
  const w = base.map((b) => Math.max(b, LEAST));
  const whole = Math.max(Math.min(total, sum(upper)), sum(lower));
  const bends = [...lower.map((l, i) => l / w[i]), ...upper.map((u, i) => u / w[i])].sort((a, b) => a - b);
  const near = Number.EPSILON * 4 * (4 + w.length);
  const reached = (bend) => sum(w.map((b, i) => clamp(bend * b, lower[i], upper[i]))) >= whole - near;
  const place = Math.max(bends.findIndex(reached), 0);
  const high = bends[place];
  const low = place > 0 ? bends[place - 1] : 0;
  const middle = w.map((b) => ((low + high) / 2) * b);
  const inside = w.map((_, i) => middle[i] > lower[i] && middle[i] < upper[i]);
  const rest = whole - sum(w.map((_, i) => (inside[i] ? 0 : middle[i] <= lower[i] ? lower[i] : upper[i])));
  const slope = sum(w.filter((_, i) => inside[i]));
  const factor = slope > 0 ? rest / Math.max(slope, LEAST) : high;
  return w.map((b, i) => clamp(factor * b, lower[i], upper[i]));
}

// Blend, scale, drop, fix, then floors and caps: the gate's weights under a profile. They keep their sum.
export function steeredGate(gate, profile, names) {
  if (!steersGate(profile)) return [...gate];
  const whole = sum(gate);
  const own = column(profile.weights, names, 0);
  const ownSum = Math.max(sum(own), LEAST);
  const blend = profile.blend ?? 0;
  const factors = column(profile.scale, names, 1);
  const wished = gate.map((g, i) => (((1 - blend) * g) / whole + (blend * own[i]) / ownSum) * factors[i]);
  const weights = column(profile.fix, names, 0);
  const left = Math.max(1 - sum(weights), 0);
  const taken = new Set([...(profile.drop ?? []), ...Object.keys(profile.fix ?? {})]);
  const free = names.flatMap((name, i) => (taken.has(name) ? [] : [i]));
  const pick = (values) => free.map((i) => values[i]);
  if (free.length) {
    const lower = pick(column(profile.floor, names, 0));
    const upper = pick(column(profile.cap, names, 1)).map((cap) => Math.min(cap, left));
    fill(pick(wished), lower, upper, left).forEach((weight, at) => (weights[free[at]] = weight));
  }
  return weights.map((weight) => weight * whole);
}

// The debiasing's matrix with each named nuisance's part multiplied with its strength.
function steeredMatrix(basis, profile) {
  if (!filled(profile.nuisances)) return basis.transform;
  return basis.transform.map((row, at) => {
    const strength = value(profile.nuisances, basis.terms[at], 1);
    return row.map((entry, j) => (j === at ? entry : entry * strength));
  });
}

// The basis as the server tells it, with the names of its columns beside.
export function readBasis(told) {
  const names = told.objectives.map((o) => o.name);
  return { ...told, names, terms: [...names, ...told.computed] };
}

// One result of POST /v1/rewards, scored as trained, as columns in the basis' order.
export function readRow(basis, result) {
  const gate = basis.names.map((name) => result.gate[name]);
  const rewards = basis.names.map((name) => result.rewards[name]);
  const computed = basis.computed.map((name, i) => {
    if (result.terms) return result.terms[name];
    const coefficient = sum(basis.transform[basis.names.length + i].map((t, j) => t * gate[j]));
    return coefficient === 0 ? 0 : result.contributions[name] / coefficient; // what no weight can reach counts for nothing
  });
  return { gate, rewards, terms: [...rewards, ...computed] };
}

// A row under a profile. `names` are the terms', constraints last.
export function weigh(basis, row, profile) {
  const gate = steeredGate(row.gate, profile, basis.names);
  const coefficients = steeredMatrix(basis, profile).map((entries) => sum(entries.map((t, j) => t * gate[j])));
  const constraints = profile.constraints ?? [];
  const missed = constraints.map((c) => {
    const reward = row.rewards[basis.names.indexOf(c.objective)];
    return Math.max(c.at_least != null ? c.at_least - reward : reward - (c.at_most ?? 0), 0);
  });
  coefficients.push(...constraints.map((c) => -(c.penalty ?? PENALTY)));
  const terms = [...row.terms, ...missed];
  const contributions = coefficients.map((c, i) => c * terms[i]);
  const names = [...basis.terms, ...constraints.map(label)];
  return { score: sum(contributions), gate, coefficients, terms, contributions, names };
}
