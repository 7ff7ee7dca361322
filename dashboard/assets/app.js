// The page. Batches from the stream are applied to the store. The visible part of the
// page is redrawn at most once per PAUSE.

import { format, parse } from './address.js'
import { Detail } from './detail.js'
import { post } from './fetch.js'
import { count, el, GROUPS, isLive, money, say } from './format.js'
import { Pools } from './pools.js'
import { Store } from './store.js'
import { Timeline } from './timeline.js'
import { Tree } from './tree.js'

const $ = id => document.getElementById(id)
const CHIPS = ['all', ...GROUPS].map(key => [key, key[0].toUpperCase() + key.slice(1)])
const PAUSE = 120 // minimum ms between two drawings
const LONGEST = 40_000 // maximum ms without a message from the server, which sends one every 15 s

let skew = 0 // time by the server's clock minus time by the browser's clock, in ms
let allowed = { cancel: false, resume: false, silent: 0 }
const now = () => Date.now() + skew
const store = new Store()
const pools = new Pools()
const detail = new Detail({ now, silent: () => allowed.silent, allowed: () => allowed, act: ask, onclose: closed, onjump: jump })
const tree = new Tree(store, { now, onselect: selected, onopen: opened, silent: () => allowed.silent, own: () => allowed.process })
const timeline = new Timeline(store, { now, onselect: selected, onopen: opened, limits: name => pools.byName.get(name) })
const wide = matchMedia('(min-width: 860px)')

// --- the stream ---

let drawn = 0
let waiting = false

function redraw() {
  if (waiting) return
  waiting = true
  const rest = Math.max(PAUSE - (performance.now() - drawn), 0)
  setTimeout(() => requestAnimationFrame(() => {
    waiting = false
    drawn = performance.now()
    store.total()
    tree.draw()
    timeline.draw()
    drawChips()
    drawSum()
    detail.draw()
  }), rest)
}

let stream = null
let arrived = 0 // time of the last message from the stream

// connect opens the stream. The server then sends the state of all tasks, so the page shows the
// changes that it has missed.
function connect() {
  stream?.close()
  stream = new EventSource('events')
  arrived = Date.now()
  const state = (name, text) => {
    $('link').dataset.state = name
    say($('link'), text)
  }
  stream.addEventListener('hello', e => {
    const hello = JSON.parse(e.data)
    heard(hello)
    allowed = hello
    document.title = hello.title
    say($('title'), hello.title)
    state('live', 'live')
  })
  stream.addEventListener('beat', e => heard(JSON.parse(e.data)))
  stream.addEventListener('batch', e => {
    arrived = Date.now()
    const batch = JSON.parse(e.data)
    store.apply(batch)
    timeline.changed()
    if (batch.pools) pools.draw(batch.pools)
    if (batch.processes) drawProcesses(batch.processes)
    if (detail.node) follow(batch)
    if (wanted) find(!batch.more)
    redraw()
  })
  stream.addEventListener('closed', () => {
    stream.close()
    stream = null
    state('closed', 'closed')
    $('link').title = 'The manager has been closed. The page shows its last state.'
  })
  stream.addEventListener('error', e => {
    if (e.target !== stream) return
    if (stream.readyState === EventSource.CLOSED) { // the server refused; the browser does not retry
      state('lost', 'refused, trying again')
      stream = null
      setTimeout(connect, 3000)
    } else state('lost', 'reconnecting')
  })
}

function heard({ now }) {
  arrived = Date.now()
  skew = now - arrived
}

// check opens a new stream if the current one has been silent for too long. A browser does not
// notice that a connection has died while the computer slept.
function check() {
  if (!stream || Math.abs(Date.now() - arrived) < LONGEST) return
  $('link').dataset.state = 'lost'
  say($('link'), 'reconnecting')
  connect()
}

// follow updates the open task's details from a batch. After a restart of the stream, the task
// has a new node. If the store no longer has the task and the task has ended, the details stay
// open. A live task that is missing was lost with an earlier process, so its details are closed.
function follow(batch) {
  const node = store.tasks.get(detail.node.key)
  if (node) {
    detail.node = node
    detail.refresh()
  } else if (!batch.more && isLive(detail.node.task)) {
    const at = document.activeElement
    detail.close()
    if (!detail.box.contains(at)) at.focus()
  }
}

// drawProcesses names the other processes whose tasks are not shown in their current state.
function drawProcesses(all) {
  say($('processes'), all.filter(p => p.problem).map(p => `${p.name}: ${p.problem}`).join(' · '))
}

// --- selection ---

let later = 0

function selected(node) {
  tree.active = node.key
  timeline.active = node.key
  if (!node.task || !(wide.matches || detail.open)) return
  clearTimeout(later)
  later = setTimeout(() => {
    if (tree.active !== node.key) return
    const again = detail.open
    detail.show(node)
    remember({ again })
  }, detail.open ? 80 : 0)
}

function opened(node, options) {
  clearTimeout(later)
  wanted = ''
  tree.active = node.key
  timeline.active = node.key
  detail.show(node, options)
  remember()
  redraw()
}

function closed() {
  clearTimeout(later)
  remember()
  const view = $('tree-view').hidden ? timeline.box : tree.box
  view.focus({ preventScroll: true })
  redraw()
}

function jump(node, { focus = true } = {}) {
  tree.activate(node.key, { quiet: true })
  timeline.activate(node, { quiet: true })
  opened(node, { focus })
}

// --- the top bar ---

const chips = CHIPS.map(([key, name]) => {
  const figure = el('b')
  const chip = el('button', { 'data-show': key, 'aria-pressed': String(key === store.show), onclick: () => pick(key) }, name, figure)
  chip.figure = figure
  return chip
})
$('chips').append(...chips)

// choose changes which tasks the tree shows, and their order.
function choose(change) {
  store.choose(change)
  for (const chip of chips) chip.setAttribute('aria-pressed', String(chip.dataset.show === store.show))
  say($('order-mark'), store.newest ? 'newest first' : 'oldest first')
  $('order').parentNode.setAttribute('aria-sort', store.newest ? 'descending' : 'ascending')
  tree.begin()
  redraw()
}

function drawChips() {
  for (const chip of chips) say(chip.figure, count(store.groups[chip.dataset.show]) || '0')
}

function drawSum() {
  const { tokens, cost, priced } = store.sum
  say($('sum'), [tokens ? `${count(tokens)} tokens` : '', money(cost)].filter(Boolean).join(' · '))
  $('sum').title = `Tokens and cost of the latest attempts of all tasks on this page, as far as their agents report them. ${priced} of ${store.tasks.size} tasks report a cost.`
}

$('search').addEventListener('input', e => {
  choose({ search: e.target.value })
  remember({ again: true })
})

$('order').addEventListener('click', () => {
  choose({ newest: !store.newest })
  remember()
})

function pick(key) {
  choose({ show: key })
  remember()
}

const tabs = [$('tab-tree'), $('tab-time')]

function view(tab) {
  for (const t of tabs) {
    t.setAttribute('aria-selected', String(t === tab))
    t.tabIndex = t === tab ? 0 : -1
    $(t.getAttribute('aria-controls')).hidden = t !== tab
  }
  redraw()
}

for (const tab of tabs) {
  tab.addEventListener('click', () => {
    view(tab)
    remember()
  })
  tab.addEventListener('keydown', e => {
    if (e.key !== 'ArrowLeft' && e.key !== 'ArrowRight') return
    const other = tabs[1 - tabs.indexOf(tab)]
    view(other)
    remember()
    other.focus()
  })
}

document.addEventListener('keydown', e => {
  if (e.ctrlKey || e.metaKey || e.altKey || $('ask').open) return
  const typing = /^(INPUT|TEXTAREA)$/.test(e.target.tagName)
  if (e.key === '/' && !typing) {
    $('search').focus()
    $('search').select()
    e.preventDefault()
  } else if (e.key === 'Escape' && typing) {
    tree.box.focus()
  } else if (e.key === 'Escape' && detail.open) detail.close()
})

// --- the address ---

let wanted = '' // id of the task in the address, until the page has the task

// remember writes what the page shows into its address. Each change becomes a step for the
// browser's Back button, unless again is true: in that case, it replaces the last step.
function remember({ again = false } = {}) {
  const to = format({
    task: detail.node?.key ?? wanted, show: store.show, search: store.search, newest: store.newest,
    view: $('tree-view').hidden ? 'timeline' : 'tree',
  })
  if (to === format(parse(location.hash))) return
  history[again ? 'replaceState' : 'pushState'](null, '', to || location.pathname + location.search)
}

// arrive makes the page show what its address says.
function arrive({ focus = false } = {}) {
  const at = parse(location.hash)
  wanted = at.task
  $('search').value = at.search
  choose({ show: at.show, search: at.search, newest: at.newest })
  view(tabs[at.view === 'tree' ? 0 : 1])
  if (!wanted && detail.open) detail.close()
  else find(false, focus)
}

// find opens the wanted task if the page has it. If all tasks have arrived and the wanted task is
// not among them, the page stops looking for it.
function find(complete, focus = true) {
  const node = store.tasks.get(wanted)
  if (node) jump(node, { focus })
  else if (complete) wanted = ''
}

addEventListener('popstate', () => arrive())

// --- actions on a task ---

const ASK = {
  cancel: { title: 'Cancel this task?', label: 'Reason (its parent sees it)', yes: 'Cancel the task', field: 'reason', busy: 'cancelling …' },
  resume: { title: 'Resume this task', label: 'What to do next', yes: 'Resume', field: 'prompt', busy: 'resuming …' },
}

let asking = null // identifies the open dialog; each dialog gets a new object

function ask(kind, node) {
  const words = ASK[kind]
  asking = {}
  say($('ask-title'), words.title)
  say($('ask-label'), words.label)
  say($('ask-yes'), words.yes)
  $('ask-text').value = ''
  $('ask-error').hidden = true
  $('ask-yes').disabled = false
  $('ask-no').onclick = () => $('ask').close()
  $('ask-yes').onclick = () => send(kind, words, node)
  $('ask-text').onkeydown = e => {
    if (e.key === 'Enter' && (e.ctrlKey || e.metaKey) && !$('ask-yes').disabled) send(kind, words, node)
  }
  $('ask').showModal()
}

async function send(kind, words, node) {
  const asked = asking
  $('ask-yes').disabled = true
  say($('ask-yes'), words.busy)
  try {
    await post(kind, { id: node.key, [words.field]: $('ask-text').value })
    if (asked === asking) $('ask').close()
  } catch (err) {
    if (asked !== asking) return
    say($('ask-error'), String(err.message ?? err))
    $('ask-error').hidden = false
  } finally {
    if (asked === asking) {
      $('ask-yes').disabled = false
      say($('ask-yes'), words.yes)
    }
  }
}

// --- start ---

arrive()
connect()
setInterval(() => {
  check()
  redraw() // updates the running times
}, 1000)
