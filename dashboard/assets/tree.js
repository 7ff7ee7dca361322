// The tree: a list of rows. Only the visible rows are in the document.

import { ago, count, duration, elapsed, el, isSilent, lastHeard, money, processText, say, stateOf, stateText } from './format.js'

const EXTRA = 6 // extra rows drawn above and below the visible rows, so that there are no gaps during scrolling

const STATE_NAMES = { running: 'running', asking: 'asking', waiting: 'waiting', parked: 'parked', queued: 'queued', completed: 'done', error: 'failed', cancelled: 'cancelled' }

class Line {
  constructor(id) {
    this.twist = el('span', { class: 'twist', 'aria-hidden': 'true' })
    this.dot = el('span', { class: 'dot', 'aria-hidden': 'true' })
    this.title = el('span', { class: 'text' })
    this.title.dir = 'auto'
    this.below = el('span', { class: 'below' })
    this.process = el('span', { class: 'process' })
    this.agent = el('span', { class: 'c-agent', role: 'gridcell' })
    this.state = el('span', { class: 'c-state', role: 'gridcell' })
    this.heard = el('span', { class: 'c-heard', role: 'gridcell' })
    this.last = el('span', { class: 'c-last', role: 'gridcell', dir: 'auto' })
    this.tools = el('span', { class: 'c-num c-tools', role: 'gridcell' })
    this.tokens = el('span', { class: 'c-num c-tokens', role: 'gridcell' })
    this.cost = el('span', { class: 'c-num c-cost', role: 'gridcell' })
    this.time = el('span', { class: 'c-num c-time', role: 'gridcell' })
    this.el = el('div', { class: 'row', role: 'row', id },
      el('span', { class: 'c-title', role: 'gridcell' }, this.twist, this.dot, this.title, this.below, this.process),
      this.agent, this.state, this.heard, this.last, this.tools, this.tokens, this.cost, this.time)
    this.index = -1
  }

  attr(name, value) {
    if (value === undefined) this.el.removeAttribute(name)
    else if (this.el.getAttribute(name) !== String(value)) this.el.setAttribute(name, value)
  }

  // place moves the line to a position in the list.
  place(index, height, item, active) {
    if (this.index !== index || this.height !== height) {
      this.index = index
      this.height = height
      this.el.style.transform = `translateY(${index * height}px)`
      this.attr('aria-rowindex', index + 2)
    }
    this.attr('aria-level', item.level)
    this.attr('aria-posinset', item.place)
    this.attr('aria-setsize', item.of)
    this.attr('aria-expanded', item.kids ? item.open : undefined)
    this.attr('aria-selected', active)
    if (this.level !== item.level) {
      this.level = item.level
      this.el.style.setProperty('--level', Math.min(item.level - 1, 12))
    }
    say(this.twist, item.kids ? (item.open ? '▾' : '▸') : '')
  }

  // failed shows how many tasks below the node have failed, including those that are folded or
  // filtered out.
  failed(node) {
    say(this.below, node.failed ? `${count(node.failed)} failed` : '')
    this.below.title = node.failed ? `${node.failed} failed ${node.failed === 1 ? 'task' : 'tasks'} below` : ''
  }

  session(item, store) {
    const name = item.node.session || 'the host'
    this.attr('data-state', 'session')
    say(this.title, name)
    say(this.agent, 'session')
    say(this.process, '')
    this.attr('data-stale', undefined)
    this.failed(item.node)
    const parts = store.summary(item.node).map(([state, n]) => `${n} ${STATE_NAMES[state]}`)
    say(this.state, '')
    say(this.last, parts.join(' · '))
    say(this.heard, '')
    this.attr('data-silent', undefined)
    say(this.tools, '')
    say(this.tokens, count(item.node.tokens))
    say(this.cost, money(item.node.cost))
    const { below } = item.node
    say(this.time, below === 1 ? '1 task' : `${count(below)} tasks`)
  }

  task(node, now, silent, own) {
    const { task } = node
    say(this.process, processText(task, own))
    this.attr('data-stale', task.problem ? '' : undefined)
    this.failed(node)
    this.attr('data-state', stateOf(task))
    say(this.title, task.title)
    say(this.agent, task.agent)
    say(this.state, stateText(task) + (task.attempt > 1 ? ` · attempt ${task.attempt}` : ''))
    const quiet = isSilent(task, now, silent)
    const since = task.heard ? ago(now - task.heard) : ''
    this.attr('data-silent', quiet || undefined)
    say(this.heard, quiet ? `silent ${since}` : since && `${since} ago`)
    say(this.last, lastHeard(task))
    say(this.tools, count(task.tools))
    say(this.tokens, count(task.tokens))
    say(this.cost, money(task.cost))
    say(this.time, duration(elapsed(task, now)))
  }
}

export class Tree {
  lines = []
  list = [] // the rows that were last drawn
  fresh = true // the next drawing does not have to keep rows in place
  active = null // key of the active row

  constructor(store, { onselect, onopen, now, silent, own }) {
    this.store = store
    this.onselect = onselect
    this.onopen = onopen
    this.now = now
    this.silent = silent
    this.own = own // returns the name of the server's process
    this.box = document.getElementById('tree')
    this.rows = document.getElementById('rows')
    this.empty = document.getElementById('empty')
    this.head = this.box.querySelector('.head')
    this.box.addEventListener('scroll', () => this.draw(), { passive: true })
    this.box.addEventListener('keydown', e => this.#key(e))
    this.rows.addEventListener('click', e => this.#click(e))
    new ResizeObserver(() => this.draw()).observe(this.box)
  }

  // draw updates the visible rows in the document.
  draw() {
    if (this.box.offsetParent === null) return
    const list = this.store.rows()
    this.store.total()
    const height = (this.height = this.#rowHeight())
    if (this.fresh) this.fresh = false
    else this.#hold(list, height)
    this.list = list
    this.rows.style.height = `${list.length * height}px`
    this.box.setAttribute('aria-rowcount', list.length + 1)
    const view = this.box.clientHeight - this.head.offsetHeight
    const from = Math.max(Math.floor(this.box.scrollTop / height) - EXTRA, 0)
    const to = Math.min(Math.ceil((this.box.scrollTop + view) / height) + EXTRA, list.length)
    const now = this.now()
    const silent = this.silent()
    const want = to - from
    while (this.lines.length < want) {
      const line = new Line(`line-${this.lines.length}`)
      this.lines.push(line)
      this.rows.append(line.el)
    }
    while (this.lines.length > want) this.lines.pop().el.remove()
    let activeLine = ''
    for (let i = from; i < to; i++) {
      // The line depends only on the index, so a row keeps its line while the list is
      // scrolled.
      const line = this.lines[i % want]
      const item = list[i]
      line.place(i, height, item, item.node.key === this.active)
      if (item.node.task) line.task(item.node, now, silent, this.own())
      else line.session(item, this.store)
      if (item.node.key === this.active) activeLine = line.el.id
    }
    if (activeLine) this.box.setAttribute('aria-activedescendant', activeLine)
    else this.box.removeAttribute('aria-activedescendant')
    this.#sayEmpty(list)
  }

  // begin makes the next drawing show the list from its start.
  begin() {
    this.fresh = true
    this.box.scrollTop = 0
  }

  #rowHeight() {
    return parseFloat(getComputedStyle(this.rows).getPropertyValue('--row')) || 28
  }

  // hold keeps the visible rows in place when other rows appear, disappear or move above them. It
  // scrolls the view as far as most of the visible rows have moved, because a single row can move
  // far when its state changes.
  #hold(list, height) {
    if (this.list === list || this.box.scrollTop < height) return
    const from = Math.floor(this.box.scrollTop / height)
    const places = new Map(this.list.slice(from, from + Math.ceil(this.box.clientHeight / height)).map((item, i) => [item.node, from + i]))
    const moves = new Map() // number of visible rows by the number of rows that they have moved
    for (let i = 0; i < list.length; i++) {
      const was = places.get(list[i].node)
      if (was !== undefined) moves.set(i - was, (moves.get(i - was) ?? 0) + 1)
    }
    let best = 0
    for (const [move, n] of moves) if (n > (moves.get(best) ?? 0)) best = move
    if (!best) return
    this.rows.style.height = `${list.length * height}px`
    this.box.scrollTop += best * height
  }

  #sayEmpty(list) {
    this.empty.hidden = list.length > 0
    if (list.length > 0) return
    say(this.empty, this.store.tasks.size ? 'No task matches.' : 'No tasks yet. They appear here as soon as an agent delegates something.')
  }

  indexOf(key) {
    return this.store.rows().findIndex(item => item.node.key === key)
  }

  // activate makes a row active and scrolls it into view.
  activate(key, { quiet = false } = {}) {
    this.active = key
    const i = this.indexOf(key)
    if (i >= 0) {
      const view = this.box.clientHeight - this.head.offsetHeight
      const top = i * this.height
      if (top < this.box.scrollTop) this.box.scrollTop = top
      else if (top + this.height > this.box.scrollTop + view) this.box.scrollTop = top + this.height - view
    }
    this.draw()
    if (!quiet && i >= 0) this.onselect(this.store.rows()[i].node)
  }

  #click(e) {
    const row = e.target.closest('.row')
    const line = this.lines.find(l => l.el === row)
    if (!line) return
    const { node, folds } = this.list[line.index]
    if (folds && (e.target.closest('.twist') || !node.task)) this.store.fold(node, !node.closed)
    this.activate(node.key)
    if (node.task) this.onopen(node)
  }

  #key(e) {
    if (e.target !== this.box || e.ctrlKey || e.metaKey || e.altKey) return
    const list = this.store.rows()
    if (!list.length) return
    const i = this.indexOf(this.active)
    const page = Math.max(Math.floor(this.box.clientHeight / this.height) - 2, 1)
    const go = to => this.activate(list[Math.max(Math.min(to, list.length - 1), 0)].node.key)
    const item = list[i]
    switch (e.key) {
      case 'ArrowDown': go(i + 1); break
      case 'ArrowUp': go(i < 0 ? list.length - 1 : i - 1); break
      case 'PageDown': go(Math.max(i, 0) + page); break
      case 'PageUp': go(Math.max(i, 0) - page); break
      case 'Home': go(0); break
      case 'End': go(list.length - 1); break
      case 'ArrowRight':
        if (!item?.kids) break
        if (!item.open) this.#fold(item.node, false)
        else go(i + 1)
        break
      case 'ArrowLeft':
        if (item?.folds && item.open) this.#fold(item.node, true)
        else if (item?.node.up) this.activate(item.node.up.key)
        break
      case 'Enter': case ' ':
        if (item?.node.task) this.onopen(item.node, { focus: true })
        else if (item?.folds) this.#fold(item.node, item.open)
        break
      default: return
    }
    e.preventDefault()
  }

  #fold(node, closed) {
    this.store.fold(node, closed)
    this.activate(node.key)
  }
}
