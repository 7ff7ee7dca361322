// The log of one task: what its program has printed. The page requests new output while the log is
// open and the task is live.

import { fetchJSON } from './fetch.js'
import { el, say } from './format.js'

const PAUSE = 1000 // ms between two requests
const KEEP = 200_000 // maximum number of characters shown; the latest are shown
const PARTS = 50 // maximum number of parts of the log that are fetched in one go

export class Log {
  task = ''
  next = 0 // offset at which the next part of the log begins
  text = ''
  live = false
  asking = null // aborts the request in flight
  timer = 0

  constructor() {
    this.pre = el('pre', { dir: 'auto', tabindex: '0' })
    this.note = el('p', { class: 'log-note' })
    this.el = el('details', { class: 'log', hidden: true, ontoggle: () => this.#read() }, el('summary', {}, 'Log'), this.note, this.pre)
  }

  // follow shows the log of a task.
  follow(task, live) {
    this.el.hidden = false
    this.task = task
    if (this.live && !live) this.#later() // the last part
    this.live = live
  }

  stop() {
    this.asking?.abort()
    clearTimeout(this.timer)
    this.task = ''
  }

  #later() {
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.#read(), PAUSE)
  }

  async #read() {
    if (!this.task || !this.el.open || this.asking) return
    const { live } = this
    const asked = (this.asking = new AbortController())
    try {
      for (let i = 0, more = true; more && i < PARTS; i++) {
        const part = await fetchJSON(`log?id=${encodeURIComponent(this.task)}&from=${this.next}`, { signal: asked.signal })
        more = part.next > this.next
        this.next = part.next
        this.#add(part.text)
      }
      say(this.note, this.text ? '' : 'Nothing yet.')
    } catch (err) {
      if (!asked.signal.aborted) say(this.note, String(err.message ?? err))
    } finally {
      this.asking = null
    }
    this.note.hidden = !this.note.textContent
    if (!asked.signal.aborted && (live || this.live)) this.#later()
  }

  #add(text) {
    if (!text) return
    const { pre } = this
    const atEnd = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 40
    this.text = (this.text + text).slice(-KEEP)
    say(pre, this.text)
    if (atEnd) pre.scrollTop = pre.scrollHeight
  }
}
