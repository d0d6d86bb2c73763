/** What is shown: a time slice of a result, and beside it another one, of this result or another. */

import { ask } from "./api.js";

export const state = {
  number: 0, // of the result
  slice: 0, // its time slice, by time
  other: null, // { number, name } of what is compared
  hit: "", // id of the object that a search has found
  track: "", // id of the track that is shown
  missing: "", // what the address names and is not there
  abouts: {}, // what is known of the results, by number
  restoring: false,
};

export const about = (number = state.number) => state.abouts[number];

export const slices = (number = state.number) => about(number)?.slices ?? [];

export const shownSlice = () => slices()[state.slice];

/** The slice that is compared; nothing if there is none, or no more. */
export const otherSlice = () =>
  state.other && slices(state.other.number).find((each) => each.name === state.other.name);

/** Asks what is known of a result, anew: it may have grown. */
export async function learn(number) {
  state.abouts[number] = await ask(`api/${number}/about`);
  return state.abouts[number];
}
