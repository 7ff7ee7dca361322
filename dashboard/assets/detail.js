// The details of one task, and the buttons for actions on the task.

import { fetchJSON, post } from './fetch.js'
import { ago, count, duration, elapsed, el, isLive, isSilent, money, processText, say, stateOf, stateText, time } from './format.js'
import { Log } from './log.js'
import { Questions } from './questions.js'

const KEEP = 150 // maximum number of messages shown; the latest are shown
const PAGES = 50 // maximum number of pages of messages that are fetched per refresh
const PAUSE = 700 // minimum ms between two refreshes of a task

export class Detail {
  node = null
  messages = new Map() // by id, in order
  after = ''
  looking = null // aborts the refresh in flight
  again = false
  looked = 0

  constructor({ now, silent, allowed, act, onclose, onjump }) {
    Object.assign(this, { now, silent, allowed, act, onclose, onjump })
    this.box = document.getElementById('detail')
    this.box.addEventListener('keydown', e => {
      if (e.key === 'Escape') {
        e.stopPropagation()
        this.close()
      }
    })
  }

  get open() { return !this.box.hidden }

  show(node, { focus = false } = {}) {
    this.box.hidden = false
    if (this.node?.key !== node.key) {
      this.#leave()
      this.node = node
      this.messages.clear()
      this.after = ''
      this.full = null
      this.seen = undefined
      this.#build()
      this.box.scrollTop = 0
    }
    document.body.dataset.detail = 'open'
    this.refresh()
    if (focus) this.box.focus()
  }

  close() {
    this.box.hidden = true
    delete document.body.dataset.detail
    this.#leave()
    this.node = null
    this.onclose()
  }

  // leave aborts the refresh in flight, because its answer would belong to the previous view,
  // even if the same task is shown again.
  #leave() {
    this.ui?.log.stop()
    this.looking?.abort()
    this.looking = null
    this.again = false
  }

  #build() {
    const part = (title, ...content) => el('section', {}, el('h3', {}, title), ...content)
    const ui = (this.ui = {
      title: el('h2', { dir: 'auto' }), badge: el('span', { class: 'badge' }), reason: el('p', { class: 'reason', dir: 'auto' }),
      facts: el('dl'), todos: el('ul', { class: 'todos' }), prompt: el('pre', { dir: 'auto' }),
      messages: el('ol', { class: 'messages' }), note: el('p', { class: 'note' }), attempts: el('ul', { class: 'attempts' }),
      cancel: el('button', { class: 'danger', onclick: () => this.act('cancel', this.node) }, 'Cancel'),
      retry: el('button', { title: 'Continue with the same prompt', onclick: () => this.#retry() }, 'Retry'),
      resume: el('button', { title: 'Continue with another prompt', onclick: () => this.act('resume', this.node) }, 'Resume'),
      problem: el('p', { class: 'problem', role: 'alert', hidden: true }), children: el('ul', { class: 'kids' }),
      error: new Whole('Error'), result: new Whole('Result'), log: new Log(), questions: new Questions(this.allowed),
    })
    ui.todoPart = part('Todos', ui.todos)
    ui.attemptPart = part('Earlier attempts', ui.attempts)
    ui.kidPart = part('Its own tasks', ui.children)
    ui.promptPart = el('details', { class: 'prompt' }, el('summary', {}, 'Prompt'), ui.prompt)
    for (const p of [ui.todoPart, ui.attemptPart, ui.kidPart]) p.hidden = true
    this.box.replaceChildren(
      el('div', { class: 'detail-head' },
        el('button', { class: 'close', 'aria-label': 'Close', title: 'Close (Esc)', onclick: () => this.close() }, '✕'),
        ui.badge, el('span', { class: 'grow' }), ui.cancel, ui.retry, ui.resume),
      ui.problem, ui.title, ui.reason, ui.questions.el, ui.error.el, ui.result.el, ui.facts, ui.todoPart, ui.kidPart, ui.attemptPart, ui.promptPart, ui.log.el, part('Messages', ui.note, ui.messages))
    say(ui.note, 'reading …')
    this.draw()
  }

  // draw shows the data that the store holds about the task.
  draw() {
    if (!this.node || this.box.hidden) return
    const { ui } = this
    const t = this.node.task
    say(ui.title, t.title)
    this.box.setAttribute('aria-label', `Task: ${t.title}`)
    this.box.dataset.state = stateOf(t)
    say(ui.badge, stateText(t))
    say(ui.reason, isLive(t) ? t.detail || t.reason || '' : '')
    ui.reason.hidden = !ui.reason.textContent
    this.#outcome()
    ui.questions.show(this.node.key, t.asks ? this.full?.questions ?? [] : [])
    const allowed = this.allowed()
    ui.cancel.hidden = !(allowed.cancel && isLive(t))
    const resumes = allowed.resume && !t.process && !isLive(t)
    ui.resume.hidden = !resumes
    ui.retry.hidden = !(resumes && t.status !== 'completed')
    if (allowed.log && !t.process) ui.log.follow(this.node.key, isLive(t))
    const since = t.heard ? `${ago(this.now() - t.heard)} ago` : ''
    const waited = (t.started || t.ended || this.now()) - t.queued
    this.#facts([
      ['Agent', t.agent], ['Model', t.model], ['Fallback', this.full?.fallback], ['Pool', t.pool],
      ['Place in line', this.full?.queue?.place],
      ['Waited', duration(waited)], [isLive(t) ? 'Running for' : 'Ran for', t.started ? duration(elapsed(t, this.now())) : ''],
      ['Last heard of', isSilent(t, this.now(), this.silent()) ? `${since}, which is long` : since],
      ['Parked until', t.phase === 'parked' && this.full?.until ? time(Date.parse(this.full.until)) : ''],
      ['Out of reach since', time(t.away)], ['Fails at', time(t.until)],
      ['Queued', time(t.queued)], ['Started', time(t.started)], ['Ended', time(t.ended)],
      ['Turns', t.turns], ['Tool calls', t.tools ? `${t.tools}${t.tool ? `, last ${t.tool}` : ''}` : ''],
      ['Tokens', count(t.tokens)], ['Cost', money(t.cost)],
      ['With its tasks', this.node.below ? [count(this.node.tokens) && `${count(this.node.tokens)} tokens`, money(this.node.cost)].filter(Boolean).join(' · ') : ''],
      ['Budget used', t.budget],
      ['Attempt', t.attempt > 1 ? t.attempt : ''], ['Notice', t.notice],
      ['Process', processText(t, allowed.process)], ['Task', t.id], ['Session', t.session], ['Parent', t.parent],
    ])
    this.#kids()
  }

  // outcome shows why the task ended, and its result. Until the whole texts have been fetched, it
  // shows the beginning of the reason, which is in the row.
  #outcome() {
    const { ui } = this
    const t = this.node.task
    const full = this.full?.status === t.status && this.full?.attempt === t.attempt ? this.full : null
    const ended = !isLive(t)
    ui.error.show(t.status === 'error' ? 'Error' : 'Reason', ended && t.status !== 'completed' ? full?.reason ?? t.reason ?? '' : '')
    ui.result.show(`Result${full?.partial ? ', not finished' : ''}${full?.reasoning ? ', only its reasoning' : ''}${full?.cut ? ', cut' : ''}`, ended ? full?.result ?? '' : '')
  }

  // retry continues the task with the prompt of its latest attempt.
  async #retry() {
    const { ui, node } = this
    ui.retry.disabled = true
    ui.problem.hidden = true
    try {
      await post('retry', { id: node.key })
    } catch (err) {
      say(ui.problem, String(err.message ?? err))
      ui.problem.hidden = false
    } finally {
      ui.retry.disabled = false
    }
  }

  #facts(list) {
    const { facts } = this.ui
    const wanted = list.filter(([, value]) => value)
    const names = wanted.map(([name]) => name).join()
    if (facts.dataset.names !== names) {
      facts.dataset.names = names
      facts.replaceChildren(...wanted.flatMap(([name]) => [el('dt', {}, name), el('dd', { dir: 'auto' })]))
    }
    wanted.forEach(([, value], i) => say(facts.children[2 * i + 1], String(value)))
  }

  #kids() {
    const { kids } = this.node
    const { ui } = this
    ui.kidPart.hidden = kids.length === 0
    const shown = kids.slice(0, 30)
    while (ui.children.children.length > shown.length) ui.children.lastChild.remove()
    shown.forEach((kid, i) => {
      let li = ui.children.children[i]
      if (!li) {
        const button = el('button', { onclick: () => this.onjump(button.node) }, el('span', { class: 'dot', 'aria-hidden': 'true' }), el('span', {}), el('small', {}))
        li = el('li', {}, button)
        ui.children.append(li)
      }
      const button = li.firstChild
      button.node = kid
      li.dataset.state = stateOf(kid.task)
      say(button.children[1], kid.task.title)
      say(button.children[2], stateText(kid.task))
    })
  }

  // refresh fetches and shows the data about the task that is not in the store. It fetches the
  // data immediately for a newly opened task, and afterwards at most once per PAUSE.
  async refresh() {
    if (!this.node) return
    const { node } = this
    if (this.looking) {
      this.again = true
      return
    }
    if (this.seen === node.task && node.task.status !== 'pending') return
    const rest = node.key === this.lookedAt ? this.looked + PAUSE - performance.now() : 0
    const look = (this.looking = new AbortController())
    try {
      if (rest > 0) await new Promise(done => setTimeout(done, rest))
      if (this.node !== node || look.signal.aborted) return
      this.looked = performance.now()
      this.lookedAt = node.key
      this.seen = node.task
      await this.#look(node, look.signal)
    } catch (err) {
      if (this.node === node && !look.signal.aborted) {
        say(this.ui.note, String(err.message ?? err))
        this.ui.note.hidden = false
        this.seen = undefined // the next batch then triggers a refresh
      }
    } finally {
      if (this.looking === look) {
        this.looking = null
        if (this.again || this.node !== node) {
          this.again = false
          this.refresh()
        }
      }
    }
  }

  async #look(node, signal) {
    const id = encodeURIComponent(node.key)
    const full = await fetchJSON(`task?id=${id}`, { signal })
    if (this.node !== node || signal.aborted) return
    this.full = full
    this.#drawFull(full)
    let note = ''
    let more = true
    for (let i = 0; more && i < PAGES; i++) {
      const page = await fetchJSON(`messages?id=${id}&after=${encodeURIComponent(this.after)}`, { signal })
      if (this.node !== node || signal.aborted) return
      for (const m of page.messages) this.messages.set(m.id, m)
      more = page.more && page.next !== this.after
      this.after = page.next || this.after
      note = page.note || ''
    }
    this.#drawMessages(note)
    if (more) { // the rest is fetched even if the task does not change again
      this.seen = undefined
      this.again = true
    }
  }

  #drawFull(full) {
    const { ui } = this
    say(ui.prompt, full.prompt)
    this.draw()
    ui.todoPart.hidden = full.todos.length === 0
    ui.todos.replaceChildren(...full.todos.slice(0, 60).map(t => el('li', { 'data-todo': t.state, dir: 'auto' }, t.text, el('span', { class: 'hidden' }, `, ${t.state}`))))
    const attempts = full.attempts ?? []
    ui.attemptPart.hidden = attempts.length === 0
    ui.attempts.replaceChildren(...attempts.map(attemptItem))
  }

  #drawMessages(note) {
    const { ui } = this
    const all = [...this.messages.values()]
    const { prompt, result, status, reason } = this.full ?? {} // shown in separate parts
    const over = status && !isLive({ status })
    const answer = over && result ? all.findLast(m => m.role !== 'user' && m.text?.trim() === result.trim()) : null
    const above = m => (m.role === 'user' && m.text === prompt) || m === answer
    const shown = all.slice(-KEEP).map(m => ({ ...m, above: above(m), told: over && !!m.error && !!reason?.includes(m.error) }))
    const left = all.length - shown.length
    say(ui.note, note || (left ? `${left} earlier messages are not shown.` : shown.length ? '' : 'None yet.'))
    ui.note.hidden = !ui.note.textContent
    const atEnd = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 40 && this.box.scrollTop > 0
    const had = new Map([...ui.messages.children].map(li => [li.dataset.id, li]))
    const items = shown.map(m => {
      const old = had.get(m.id)
      return old && same(old.message, m) ? old : messageItem(m)
    })
    if (items.length !== ui.messages.children.length || items.some((li, i) => ui.messages.children[i] !== li)) ui.messages.replaceChildren(...items)
    if (atEnd) this.box.scrollTop = this.box.scrollHeight
  }
}

// Whole shows a text in full, with a button that copies it.
class Whole {
  constructor(title) {
    this.title = el('h3', {}, title)
    this.button = el('button', { class: 'copy', onclick: () => this.#copy() }, 'Copy')
    this.pre = el('pre', { dir: 'auto', tabindex: '0' })
    this.el = el('section', { class: 'whole', hidden: true }, el('div', { class: 'part-head' }, this.title, this.button), this.pre)
  }

  show(title, text) {
    say(this.title, title)
    say(this.pre, text)
    this.el.hidden = !text
  }

  // copy copies the text. A page that was not loaded over HTTPS or from this machine is not allowed
  // to use the clipboard, so in that case, the text is selected and copied with the document's copy
  // command.
  async #copy() {
    let copied = true
    try {
      await navigator.clipboard.writeText(this.pre.textContent)
    } catch {
      getSelection().selectAllChildren(this.pre)
      copied = document.execCommand('copy')
    }
    say(this.button, copied ? 'Copied' : 'Selected')
    setTimeout(() => say(this.button, 'Copy'), 1500)
  }
}

function attemptItem(a) {
  const [from, to] = [Date.parse(a.started ?? a.queued), Date.parse(a.ended)]
  return el('li', {}, el('div', { class: 'who' }, `${a.number}: ${a.status}${a.cause ? ` · ${a.cause}` : ''}`, el('time', {}, `${time(from)} · ${duration(to - from)}`)),
    a.reason ? el('pre', { dir: 'auto' }, a.reason) : '')
}

const same = (a, b) => a === b || JSON.stringify(a) === JSON.stringify(b)

function messageItem(m) {
  const li = el('li', { 'data-role': m.role },
    el('div', { class: 'who' }, m.role === 'user' ? 'prompt' : m.role, el('time', {}, time(m.time)), m.finished ? '' : el('span', { class: 'busy' }, 'writing')),
    m.reasoning ? el('details', {}, el('summary', {}, 'thinking'), el('pre', { dir: 'auto' }, m.reasoning)) : '',
    m.tools?.length ? el('div', { class: 'calls' }, ...m.tools.map(t => el('span', { 'data-tool': t.state, title: t.state }, t.name))) : '',
    m.above ? el('p', { class: 'note' }, 'as above') : m.text ? el('pre', { dir: 'auto' }, m.text) : '',
    m.error && !m.told ? el('p', { class: 'problem', dir: 'auto' }, m.error) : '')
  li.dataset.id = m.id
  li.message = m
  return li
}
