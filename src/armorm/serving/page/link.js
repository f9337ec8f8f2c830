// The page's state in its address, behind the # that no server sees.
//
// In: plain values.  Out: a text of letters, digits, - and _ that stands for them; null where it would be too long for a link.

export const LONGEST = 8000; // characters of a link's state: more is cut by programs through which links are sent
const MOST = 400000; // bytes that a link's state may unpack to
const KEY = "s=";

async function through(stream, bytes, most) {
  const reader = new Blob([bytes]).stream().pipeThrough(stream).getReader();
  const parts = [];
  let size = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    size += part.value.length;
    if (size > most) {
      await reader.cancel();
      throw new RangeError("too much");
    }
    parts.push(part.value);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

export async function write(state) {
  const bytes = new TextEncoder().encode(JSON.stringify(state));
  const packed = await through(new CompressionStream("deflate-raw"), bytes, Infinity);
  if (packed.length > LONGEST) return null;
  const letters = btoa(String.fromCharCode(...packed));
  const text = letters.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  return text.length > LONGEST ? null : KEY + text;
}

// Of a link's hash; undefined where it carries no state. Throws where what it carries can't be read.
export async function read(hash) {
  const text = hash.replace(/^#/, "");
  if (!text.startsWith(KEY)) return undefined;
  if (text.length > LONGEST + KEY.length) throw new RangeError("too long");
  const letters = atob(text.slice(KEY.length).replaceAll("-", "+").replaceAll("_", "/"));
  const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
  return checked(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(await through(new DecompressionStream("deflate-raw"), bytes, MOST))));
}

function checked(state) {
  const texts = (of) => Array.isArray(of) && of.every((text) => typeof text === "string");
  const sound =
    state !== null && typeof state === "object" && state.v === 1 && texts([state.prompt, state.system]) && texts(state.answers) && state.answers.length > 0;
  if (!sound) throw new TypeError("no state");
  const object = (of) => of !== null && typeof of === "object" && !Array.isArray(of);
  const pair = Array.isArray(state.pair) && state.pair.every(Number.isInteger) ? state.pair : null;
  return { ...state, profile: object(state.profile) ? state.profile : null, pair };
}
