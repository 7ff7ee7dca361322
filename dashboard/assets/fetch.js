// Requests to the server.

// post asks the server to change something.
export function post(what, body) {
  return fetchJSON(what, { method: 'POST', headers: { 'Content-Type': 'application/json', 'X-Bgagent-Dashboard': '1' }, body: JSON.stringify(body) })
}

export async function fetchJSON(url, options) {
  const answer = await fetch(url, options)
  const body = await answer.json().catch(() => ({ error: `${answer.status} ${answer.statusText}` }))
  if (!answer.ok) throw new Error(body.error ?? answer.statusText)
  return body
}
