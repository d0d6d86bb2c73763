/** What the page asks of its server. Addresses are relative, so that a token in the path stays there. */

export const place = (path) => new URL(path, document.baseURI).href;

const query = (asked) => {
  const given = Object.entries(asked).filter(([, value]) => value !== "" && value != null);
  return new URLSearchParams(given).toString();
};

export const address = (path, asked = {}) => {
  const text = query(asked);
  return place(text ? `${path}?${text}` : path);
};

/** Answers with JSON; what the server says is wrong is thrown as an Error. */
export async function ask(path, asked = {}, signal = undefined) {
  let answer;
  try {
    answer = await fetch(address(path, asked), { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer; is `earthgptx serve` still running?");
  }
  const found = await answer.json().catch((error) => {
    if (answer.ok || error.name === "AbortError") throw error;
    return { error: `the server answers ${answer.status}` };
  });
  if (!answer.ok) throw new Error(found.error ?? `the server answers ${answer.status}`);
  return found;
}
