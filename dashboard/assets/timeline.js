// The timeline. For each pool, it shows the lanes and, above the lanes, the number of waiting
// tasks. Tasks that run at the same time are on different lanes. Lanes are not slots and have
// no numbers: a task that waits for its own tasks keeps its lane but has no slot.

import { duration, el, elapsed, say, stateOf, stateText } from './format.js'
import { lanes, queueLengths } from './lanes.js'

const LANE = 17
const HEAD = 26
const QUEUE = 22
const GAP = 10
const AXIS = 24
const RECOMPUTE = 400 // minimum ms between two computations of the lanes
const SPANS = [['1 min', 60e3], ['5 min', 300e3], ['15 min', 900e3], ['1 h', 3600e3], ['All', 0]]
const STATES = ['running', 'asking', 'waiting', 'parked', 'queued', 'completed', 'error', 'cancelled']
const NAMES = { running: 'running', asking: 'asks', waiting: 'waits for its tasks', parked: 'parked', queued: 'queued', completed: 'completed', error: 'error', cancelled: 'cancelled' }

export class Timeline {
  span = SPANS[1][1]
  back = 0 // ms by which the view is moved into the past
  pools = []
  active = null // key of the selected task
  hits = []
  computed = 0
  stale = true

  constructor(store, { onselect, onopen, now, limits }) {
    Object.assign(this, { store, onselect, onopen, now, limits })
    this.box = document.getElementById('timeline')
    this.canvas = document.getElementById('canvas')
    this.sizer = document.getElementById('time-size')
    this.said = document.getElementById('time-said')
    this.#controls()
    this.box.addEventListener('scroll', () => this.draw(), { passive: true })
    this.box.addEventListener('keydown', e => this.#key(e))
    this.#pointer()
    new ResizeObserver(() => this.draw()).observe(this.box)
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { this.colours = null; this.draw() })
  }

  #controls() {
    const spans = document.getElementById('spans')
    for (const [name, ms] of SPANS) {
      spans.append(el('button', { 'aria-pressed': String(ms === this.span), onclick: e => {
        this.span = ms
        this.back = 0
        for (const b of spans.children) b.setAttribute('aria-pressed', String(b === e.currentTarget))
        this.draw()
      } }, name))
    }
    document.getElementById('legend').append(...STATES.map(s => el('li', { 'data-state': s }, el('span', { class: 'dot', 'aria-hidden': 'true' }), NAMES[s])))
  }

  #pointer() {
    let drag = null
    this.box.addEventListener('pointerdown', e => {
      drag = { x: e.clientX, back: this.back, moved: false }
    })
    this.box.addEventListener('pointermove', e => {
      if (!drag || !(e.buttons & 1)) return
      const dx = e.clientX - drag.x
      if (Math.abs(dx) > 4) drag.moved = true
      if (drag.moved) {
        this.back = Math.max(drag.back + (dx / this.#plotWidth()) * (this.to - this.from), 0)
        this.draw()
      }
    })
    this.box.addEventListener('pointerup', e => {
      if (drag && !drag.moved) this.#click(e)
      drag = null
    })
  }

  #click(e) {
    const r = this.canvas.getBoundingClientRect()
    const x = e.clientX - r.left
    const y = e.clientY - r.top
    const near = hit => Math.max(hit.x0 - x, x - hit.x1, 0)
    const hits = this.hits.filter(hit => y >= hit.y && y < hit.y + LANE && near(hit) <= 5)
    hits.sort((a, b) => near(a) - near(b))
    if (!hits.length) return
    this.activate(hits[0].node)
    this.onopen(hits[0].node)
  }

  changed() {
    this.stale = true
  }

  #compute() {
    const now = performance.now()
    if (!this.stale || now - this.computed < RECOMPUTE) return
    this.computed = now
    this.stale = false
    this.pools = lanes(this.store.tasks.values())
    let y = AXIS
    for (const pool of this.pools) {
      pool.y = y
      pool.lanesY = y + HEAD + QUEUE
      y = pool.lanesY + pool.lanes.length * LANE + GAP
    }
    this.sizer.style.height = `${y}px`
  }

  #plotWidth() { return this.width - this.left - 8 }
  #x(at) { return this.left + ((at - this.from) / (this.to - this.from)) * this.#plotWidth() }

  #window() {
    const now = this.now()
    let span = this.span
    if (!span) {
      let first = now - 60e3
      for (const { task } of this.store.tasks.values()) first = Math.min(first, task.queued)
      span = (now - first) * 1.05
    }
    this.to = now - this.back + span * 0.03
    this.from = this.to - span
  }

  draw() {
    if (this.box.offsetParent === null) return
    this.#compute()
    this.width = this.box.clientWidth
    this.left = this.width < 600 ? 12 : 44
    const height = this.box.clientHeight
    const scale = devicePixelRatio || 1
    if (this.canvas.width !== Math.round(this.width * scale) || this.canvas.height !== Math.round(height * scale)) {
      this.canvas.width = Math.round(this.width * scale)
      this.canvas.height = Math.round(height * scale)
      this.canvas.style.width = `${this.width}px`
      this.canvas.style.height = `${height}px`
    }
    this.#readColours()
    this.#window()
    const c = this.canvas.getContext('2d')
    c.setTransform(scale, 0, 0, scale, 0, 0)
    c.clearRect(0, 0, this.width, height)
    this.hits = []
    const top = this.box.scrollTop
    const seen = this.pools.filter(pool => pool.lanesY + pool.lanes.length * LANE > top && pool.y < top + height)
    // The grid is drawn over the empty lanes and under everything with text.
    for (const pool of seen) this.#drawGround(c, pool, top, height)
    this.#drawGrid(c, height)
    for (const pool of seen) this.#drawPool(c, pool, top, height)
    this.#drawAxis(c, height)
  }

  #readColours() {
    if (this.colours) return
    const style = getComputedStyle(document.documentElement)
    const read = name => style.getPropertyValue(name).trim()
    this.colours = Object.fromEntries([...STATES, 'fg', 'dim', 'bg', 'line', 'accent', 'on-state', 'lane'].map(n => [n, read(`--${n}`)]))
    this.font = `11px ${read('--sans')}`
  }

  // marks calls f for every grid line with its position, its time and the step between lines.
  #marks(f) {
    const steps = [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400]
    const most = Math.max(this.#plotWidth() / 76, 2)
    const step = 1000 * (steps.find(s => (this.to - this.from) / 1000 / s <= most) ?? 86400)
    const zone = new Date(this.from).getTimezoneOffset() * 60e3
    for (let at = Math.ceil((this.from - zone) / step) * step + zone; at < this.to; at += step) f(Math.round(this.#x(at)) + 0.5, at, step)
  }

  #drawGrid(c, height) {
    c.fillStyle = this.colours.line
    this.#marks(x => c.fillRect(x, AXIS - 6, 1, height))
  }

  #drawAxis(c, height) {
    const { dim, line, bg } = this.colours
    c.fillStyle = bg
    c.fillRect(0, 0, this.width, AXIS - 2)
    c.font = this.font
    c.textBaseline = 'middle'
    c.textAlign = 'center'
    let clock
    this.#marks((x, at, step) => {
      clock ??= new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: step < 60e3 ? '2-digit' : undefined, hour12: false })
      c.fillStyle = line
      c.fillRect(x, AXIS - 6, 1, 4)
      c.fillStyle = dim
      if (x > 30 && x < this.width - 30) c.fillText(clock.format(at), x, 10)
    })
    const x = this.#x(this.now())
    if (x <= this.width) {
      c.fillStyle = this.colours.accent
      c.fillRect(x, AXIS - 6, 1, height)
    }
  }

  #drawPool(c, pool, top, height) {
    const y = pool.y - top
    const limit = this.limits(pool.name)
    c.font = `600 ${this.font}`
    c.textAlign = 'left'
    c.textBaseline = 'middle'
    const w = this.#say(c, pool.name, 12, y, this.colours.fg)
    c.font = this.font
    if (limit) this.#say(c, `${limit.in_use} of ${limit.limit < 0 ? '∞' : limit.limit} in use${limit.waiting ? ` · ${limit.waiting} waiting` : ''}`, 22 + w, y, this.colours.dim)
    this.#drawQueue(c, pool, y + HEAD)
    this.#eachLane(pool, top, height, (lane, at) => this.#drawLane(c, pool, lane, at))
  }

  // say draws text in the head of a pool, on a plain background that hides the grid. It returns the
  // width of the text.
  #say(c, text, x, y, colour) {
    const w = c.measureText(text).width
    c.fillStyle = this.colours.bg
    c.fillRect(x - 2, y + 4, w + 4, HEAD - 8)
    c.fillStyle = colour
    c.fillText(text, x, y + HEAD / 2)
    return w
  }

  #drawGround(c, pool, top, height) {
    c.fillStyle = this.colours.lane
    c.fillRect(this.left, pool.y - top + HEAD + QUEUE - 3, this.#plotWidth(), 1)
    this.#eachLane(pool, top, height, (_, at) => c.fillRect(this.left, at + 2, this.#plotWidth(), LANE - 4))
  }

  #eachLane(pool, top, height, f) {
    const first = Math.max(Math.floor((top - pool.lanesY) / LANE), 0)
    const last = Math.min(Math.ceil((top + height - pool.lanesY) / LANE), pool.lanes.length)
    for (let lane = first; lane < last; lane++) f(lane, pool.lanesY + lane * LANE - top)
  }

  #drawQueue(c, pool, y) {
    const width = Math.max(Math.floor(this.#plotWidth() / 2), 1)
    const now = this.now()
    const lengths = queueLengths(pool.nodes, this.from, this.to, width, now)
    const most = lengths.reduce((a, b) => Math.max(a, b), 0)
    if (!most) return
    c.fillStyle = this.colours.queued
    const end = Math.min(this.#x(now), this.left + this.#plotWidth())
    for (let i = 0; i < width; i++) {
      const x = this.left + i * 2
      if (lengths[i] && x < end) {
        const h = Math.max((lengths[i] / most) * (QUEUE - 6), 1.5)
        c.fillRect(x, y + QUEUE - 3 - h, 2, h)
      }
    }
    c.textAlign = 'right'
    c.fillStyle = this.colours.dim
    if (this.left > 20) c.fillText(String(most), this.left - 6, y + 7)
  }

  #drawLane(c, pool, lane, y) {
    const { dim, accent, fg } = this.colours
    c.textAlign = 'left'
    const now = this.now()
    const right = this.left + this.#plotWidth()
    for (const node of pool.lanes[lane] ?? []) {
      const t = node.task
      if (t.started > this.to || (t.ended || now) < this.from) continue
      const x0 = Math.max(this.#x(t.started), this.left)
      const x1 = Math.min(Math.max(this.#x(t.ended || now), x0 + 2), right)
      const state = stateOf(t)
      c.fillStyle = this.colours[state] ?? dim
      const width = Math.max(x1 - x0 - 0.5, 1)
      const pale = t.ended && node.key !== this.active
      if (pale) { // ended tasks are drawn paler; the grid under them is covered first, so that it does not show through
        c.fillStyle = this.colours.bg
        c.fillRect(x0, y + 2, width, LANE - 4)
        c.fillStyle = this.colours[state] ?? dim
        c.fillRect(x0, y + 2, Math.min(width, 3), LANE - 4)
        c.globalAlpha = 0.3
      }
      c.fillRect(x0, y + 2, width, LANE - 4)
      c.globalAlpha = 1
      if (x1 - x0 > 34) this.#label(c, t, x0, x1, y, this.colours[pale ? 'fg' : 'on-state'])
      if (node.key === this.active) {
        c.strokeStyle = fg
        c.lineWidth = 1.5
        c.strokeRect(x0 - 0.5, y + 1.5, x1 - x0 + 0.5, LANE - 3)
      }
      this.hits.push({ x0, x1, y, node })
    }
    c.fillStyle = accent
  }

  #label(c, t, x0, x1, y, colour) {
    c.save()
    c.beginPath()
    c.rect(x0 + 2, y, x1 - x0 - 6, LANE)
    c.clip()
    c.fillStyle = colour
    c.fillText(t.title.slice(0, 120), x0 + 5, y + LANE / 2 + 0.5)
    c.restore()
  }

  // activate selects a task and scrolls its bar into view.
  activate(node, { quiet = false } = {}) {
    this.active = node?.key ?? null
    const at = node && this.#find(node.key)
    if (at) {
      const y = at.pool.lanesY + at.lane * LANE
      if (y < this.box.scrollTop + AXIS) this.box.scrollTop = y - AXIS - HEAD
      else if (y + LANE > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = y + LANE - this.box.clientHeight
      const { task } = node
      const now = this.now()
      if (task.started > this.to || (task.ended || now) < this.from) this.back = Math.max(now - task.started - (this.to - this.from) * 0.7, 0)
      if (!quiet) {
        say(this.said, `${task.title}, ${stateText(task)}, ${duration(elapsed(task, now))}, ${at.pool.name}, row ${at.lane + 1}`)
        this.onselect(node)
      }
    }
    this.draw()
  }

  #find(key) {
    for (const [p, pool] of this.pools.entries()) {
      for (const [lane, nodes] of pool.lanes.entries()) {
        const i = nodes.findIndex(node => node.key === key)
        if (i >= 0) return { p, pool, lane, i }
      }
    }
    return null
  }

  #key(e) {
    if (e.ctrlKey || e.metaKey || e.altKey) return
    const at = this.#find(this.active)
    let to = null
    if (e.key === 'Enter' || e.key === ' ') {
      if (at) this.onopen(at.pool.lanes[at.lane][at.i], { focus: true })
    } else if (!e.key.startsWith('Arrow')) return
    else if (!at) to = this.#latest()
    else if (e.key === 'ArrowLeft') to = at.pool.lanes[at.lane][at.i - 1]
    else if (e.key === 'ArrowRight') to = at.pool.lanes[at.lane][at.i + 1]
    else to = this.#beside(at, e.key === 'ArrowDown' ? 1 : -1)
    e.preventDefault()
    if (to) this.activate(to)
  }

  #latest() {
    let best = null
    for (const pool of this.pools) for (const lane of pool.lanes) for (const node of lane) if (!best || node.task.started > best.task.started) best = node
    return best
  }

  // beside returns the node on the next lane whose task started at the nearest time.
  #beside(at, step) {
    let { p, lane } = at
    lane += step
    while (this.pools[p] && !this.pools[p].lanes[lane]) {
      p += step
      lane = step > 0 ? 0 : (this.pools[p]?.lanes.length ?? 0) - 1
    }
    const start = at.pool.lanes[at.lane][at.i].task.started
    const distance = node => Math.abs(node.task.started - start)
    return this.pools[p]?.lanes[lane].reduce((a, b) => (distance(b) < distance(a) ? b : a))
  }
}
