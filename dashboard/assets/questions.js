// The open questions of one task, with a button for each possible answer.

import { post } from './fetch.js'
import { el, say } from './format.js'

export class Questions {
  constructor(allowed) {
    this.allowed = allowed
    this.el = el('div', { class: 'questions' })
  }

  // show shows the task's questions. Questions that are already shown stay as they are, so that a
  // button does not move while it is being pressed.
  show(task, list) {
    const { answer, permit } = this.allowed()
    const drawn = JSON.stringify([task, answer, permit, list.map(q => q.key)])
    if (drawn === this.drawn) return
    this.drawn = drawn
    this.el.replaceChildren(...list.map(q => this.#question(task, q, q.kind === 'permission' ? permit : answer)))
  }

  #question(task, q, allowed) {
    const problem = el('p', { class: 'problem', role: 'alert', hidden: true })
    const buttons = q.options.map(option => el('button', { dir: 'auto', onclick: () => send(option) }, option))
    const send = async option => {
      for (const b of buttons) b.disabled = true
      problem.hidden = true
      try {
        await post('answer', { id: task, key: q.key, option })
      } catch (err) {
        say(problem, String(err.message ?? err))
        problem.hidden = false
        for (const b of buttons) b.disabled = false
      }
    }
    return el('section', { class: 'question', 'data-kind': q.kind },
      el('h3', {}, q.kind === 'permission' ? 'Asks for a permission' : 'Asks'), el('p', { class: 'asks', dir: 'auto' }, q.title),
      q.subject.trim() ? el('pre', { dir: 'auto', tabindex: '0' }, q.subject) : '',
      el('p', { class: 'note' }, `Expires ${new Date(q.expires).toLocaleString()}`),
      allowed ? el('div', { class: 'options' }, ...buttons) : el('p', { class: 'note' }, `The possible answers are: ${q.options.join(', ')}. They cannot be given on this page.`),
      problem)
  }
}
