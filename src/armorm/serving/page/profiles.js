// Profiles as people move them: a slider a factor, and in words whatever else a profile asks for.
//
// In: a profile in the form of docs/steer.md.  Out: another profile; none is changed in place.

import { label } from "./weighing.js";
import { percent } from "./telling.js";

export const AS_TRAINED = Object.freeze({ name: "as trained" });
export const LOWEST = -31; // of a slider: not at all
export const HIGHEST = 30; // eight times
const STEPS = 10; // that make twice as much

const has = (of, name) => Object.hasOwn(of ?? {}, name);
const without = (of, name) => Object.fromEntries(Object.entries(of ?? {}).filter(([key]) => key !== name));

// The same without what is empty, as the server writes it.
function tidy(profile) {
  const empty = (value) => value == null || value === "" || (typeof value === "object" && !Object.keys(value).length);
  return Object.fromEntries(Object.entries(profile).filter(([, value]) => !empty(value)));
}

export function factorOf(profile, name) {
  if ((profile.drop ?? []).includes(name)) return 0;
  return has(profile.scale, name) ? profile.scale[name] : 1;
}

export function withFactor(profile, name, factor) {
  const drop = (profile.drop ?? []).filter((dropped) => dropped !== name);
  const scale = without(profile.scale, name);
  if (factor === 0) return tidy({ ...profile, scale, drop: [...drop, name] });
  return tidy({ ...profile, drop, scale: factor === 1 ? scale : Object.fromEntries([...Object.entries(scale), [name, factor]]) });
}

export const factorAt = (place) => (place <= LOWEST ? 0 : Number((2 ** (place / STEPS)).toPrecision(3)));
export const placeOf = (factor) => (factor <= 0 ? LOWEST : Math.min(Math.max(Math.round(STEPS * Math.log2(factor)), LOWEST + 1), HIGHEST));
export const factorText = (factor) => (factor === 0 ? "off" : `× ${factor >= 10 ? factor.toPrecision(3) : Number(factor.toFixed(2))}`);

// Why an objective's slider can't move, or can't move to 0: what a profile with that would be refused for.
export const isFixed = (profile, name) => has(profile.fix, name);
export const mustStay = (profile, name) => has(profile.floor, name) || has(profile.cap, name) || (has(profile.weights, name) && profile.weights[name] > 0);

// What a profile asks for that no slider shows: a text, and the profile without it.
export function wishes(profile) {
  const bounds = [
    ["fix", (name, weight) => `${name}: exactly ${percent(weight)}`],
    ["floor", (name, weight) => `${name}: at least ${percent(weight)}`],
    ["cap", (name, weight) => `${name}: at most ${percent(weight)}`],
    ["nuisances", (name, strength) => `${name} taken out × ${strength}`],
  ];
  const found = bounds.flatMap(([key, told]) =>
    Object.entries(profile[key] ?? {}).map(([name, value]) => ({ text: told(name, value), rest: tidy({ ...profile, [key]: without(profile[key], name) }) })),
  );
  if (profile.blend != null) {
    const own = Object.entries(profile.weights ?? {}).map(([name, weight]) => `${name} ${weight}`);
    found.push({ text: `${percent(profile.blend)} own weights (${own.join(", ")})`, rest: tidy({ ...profile, weights: {}, blend: null }) });
  }
  (profile.constraints ?? []).forEach((constraint, at) => {
    const rest = profile.constraints.filter((_, i) => i !== at);
    found.push({ text: `${label(constraint)}, or it costs`, rest: tidy({ ...profile, constraints: rest }) });
  });
  return found;
}
