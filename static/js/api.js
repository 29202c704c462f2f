// Calls of the API. What goes wrong comes as an ApiError whose message and hint are for people.

export class ApiError extends Error {
  constructor(status, error) {
    super(error.message);
    this.status = status;
    this.hint = error.hint || "";
    this.fields = error.fields || {};
  }

  get sentence() {
    return [this.message, this.hint].filter(Boolean).join(" ");
  }
}

export const AWAY = { message: "The server cannot be reached.", hint: "Check that it runs, then try again." };

export async function call(method, path, body, { headers = {}, signal } = {}) {
  const options = { method, signal, headers: { "X-Preflab": "1", Accept: "application/json", ...headers } };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(`/api/v1${path}`, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, AWAY);
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new ApiError(response.status, answer.error || { message: `The server answered ${response.status}.` });
  }
  return answer;
}
