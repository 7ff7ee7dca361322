// Wording and formatting. Every function in this file except "say" is pure.

const day = new Intl.DateTimeFormat(undefined, { weekday: 'short', hour: '2-digit', minute: '2-digit', hour12: false })

const running = task => (task.tool ? `running · ${task.tool}` : 'running')

const parked = task => (task.asks ? 'asks' : task.parked ? `parked until ${day.format(task.parked)}` : 'waits for the provider')

// PHASES holds the state and the words with which the page shows each phase of a running task.
const PHASES = {
  '': { state: 'running', words: running },
  'starting': { state: 'running', words: () => 'starting' },
  'in a turn': { state: 'running', words: running },
  'asking': { state: 'asking', words: () => 'asks' },
  'waiting for its own tasks': { state: 'waiting', words: task => `waits for ${task.waiting || 'its'} task${task.waiting === 1 ? '' : 's'}` },
  'stopping': { state: 'running', words: running },
  'storing': { state: 'running', words: () => 'storing its result' },
  'parked': { state: 'waiting', words: parked },
}

const phaseOf = task => PHASES[task.phase || ''] || PHASES['']

// stateOf maps a task to one of the states that the page distinguishes by colour.
export function stateOf(task) {
  if (isParked(task)) return 'parked'
  if (task.status === 'pending') return 'queued'
  if (task.status !== 'running') return task.status
  return phaseOf(task).state
}

export const isLive = task => task.status === 'pending' || task.status === 'running'
const isParked = task => isLive(task) && task.phase === 'parked'

const ENDS = { completed: 'done', error: 'failed', cancelled: 'cancelled' }

// GROUPS holds the groups that the user can select. Each task belongs to exactly one group.
export const GROUPS = ['running', 'queued', 'parked', 'failed', 'cancelled', 'done']

export function groupOf(task) {
  if (isParked(task)) return 'parked'
  if (task.status === 'pending') return 'queued'
  return ENDS[task.status] ?? 'running'
}

const RANKS = { running: 0, parked: 1, queued: 2 }

// rankOf returns the rank of a task's group among the groups below a session.
export const rankOf = task => RANKS[groupOf(task)] ?? 3

// stateText returns a few words about what a task is doing or about how it ended.
export function stateText(task) {
  switch (stateOf(task)) {
    case 'queued': return 'queued'
    case 'asking':
    case 'parked':
    case 'waiting': return phaseOf(task).words(task)
    case 'running': return task.away ? 'out of reach' : phaseOf(task).words(task)
    case 'completed': return 'completed'
    default:
      if (task.phase === 'stopping') return `${task.status} · stopping`
      if (!task.cause) return task.status
      return task.cause.includes(task.status) ? task.cause : `${task.status} · ${task.cause}` // avoids "cancelled · cancelled by …"
  }
}

// lastHeard returns the most informative current line about a task.
export function lastHeard(task) {
  if (task.over) return 'did not stop in time; its slot has been passed on'
  if (task.status === 'error' || task.status === 'cancelled' || isParked(task)) return (task.reason || '').replace(/^the turn: /, '') // so that a phone shows more of it
  return task.detail || task.text || ''
}

export function duration(ms) {
  if (!(ms >= 0)) return ''
  const s = Math.floor(ms / 1000)
  if (s < 10) return `${(Math.floor(ms / 100) / 10).toFixed(1)}s`
  if (s < 60) return `${s}s`
  const m = Math.floor(s / 60)
  if (m < 60) return `${m}m ${String(s % 60).padStart(2, '0')}s`
  return `${Math.floor(m / 60)}h ${String(m % 60).padStart(2, '0')}m`
}

// ago returns an approximate time span, in a single unit.
export function ago(ms) {
  const s = Math.max(Math.floor(ms / 1000), 0)
  if (s < 60) return `${s}s`
  if (s < 3600) return `${Math.floor(s / 60)}m`
  if (s < 2 * 86400) return `${Math.floor(s / 3600)}h`
  return `${Math.floor(s / 86400)}d`
}

const WORKING = ['', 'starting', 'in a turn']

// isSilent reports whether a task is working but has been silent for at least the given time in ms.
// A task that waits for something else is expected to be silent.
export function isSilent(task, now, most) {
  return most > 0 && !!task.heard && task.status === 'running' && WORKING.includes(task.phase || '') && now - task.heard >= most
}

// money formats US dollars. It is empty for 0, because clients that do not know a cost report 0.
export function money(x) {
  if (!x) return ''
  return `$${x.toFixed(x < 0.1 ? 4 : x < 1000 ? 2 : 0)}`
}

// elapsed returns how long a task has been running or, if it is pending, how long it has been
// queued.
export function elapsed(task, now) {
  if (task.ended) return task.started ? task.ended - task.started : 0
  return Math.max(now - (task.started || task.queued), 0)
}

export function count(n) {
  if (!n) return ''
  if (n < 1000) return String(n)
  if (n < 1e6) return `${(n / 1e3).toFixed(n < 1e4 ? 1 : 0)}k`
  if (n < 1e9) return `${(n / 1e6).toFixed(1)}M`
  return `${(n / 1e9).toFixed(1)}G`
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false })
export const time = ms => (ms ? clock.format(ms) : '')

// el creates an element. Strings in content become text, never markup.
export function el(name, attributes = {}, ...content) {
  const e = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'class') e.className = value
    else if (key.startsWith('on')) e.addEventListener(key.slice(2), value)
    else if (value !== undefined && value !== false) e.setAttribute(key, value === true ? '' : value)
  }
  e.append(...content.filter(c => c !== undefined && c !== null && c !== ''))
  return e
}

// say sets an element's text. It changes the document only if the text differs.
export function say(e, text) {
  if (e.firstChild ? e.firstChild.data !== text : text !== '') e.textContent = text
}

// processText names the process that has a task. It is empty if the server is not one of several. The
// argument own is the name of the server's process.
export function processText(task, own) {
  if (!task.process) return own ?? ''
  return task.problem ? `${task.process}: ${task.problem}` : task.process
}
