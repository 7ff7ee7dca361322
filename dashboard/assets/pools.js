// The pools, each with the number of slots in use and the number of tasks that are waiting
// for a slot.

import { el, say } from './format.js'

const MOST = 60 // maximum number of pools shown; the busiest are shown

export class Pools {
  byName = new Map()
  cards = new Map()

  constructor() {
    this.box = document.getElementById('pools')
  }

  draw(pools) {
    this.byName = new Map(pools.map(p => [p.name, p]))
    const busy = p => p.waiting * 1000 + p.in_use
    const shown = pools.length <= MOST ? pools : [...pools].sort((a, b) => busy(b) - busy(a)).slice(0, MOST)
    for (const [name, card] of this.cards) {
      if (!shown.some(p => p.name === name)) {
        card.el.remove()
        this.cards.delete(name)
      }
    }
    shown.forEach((p, i) => {
      const card = this.cards.get(p.name) ?? this.#card(p.name)
      if (this.box.children[i] !== card.el) this.box.insertBefore(card.el, this.box.children[i] ?? null)
      this.#fill(card, p)
    })
    this.box.hidden = shown.length === 0
  }

  #card(name) {
    const [kind, ...rest] = name.split(' ')
    const card = { figure: el('b'), waiting: el('span', { class: 'waiting' }), bar: el('span', { class: 'bar', 'aria-hidden': 'true' }) }
    card.bar.append(el('i'))
    card.el = el('div', { class: 'pool', role: 'group', 'aria-label': name },
      el('span', { class: 'name' }, rest.length ? el('small', {}, `${kind} `) : '', rest.join(' ') || kind), card.figure, card.waiting, card.bar)
    this.cards.set(name, card)
    return card
  }

  #fill(card, p) {
    const limit = p.limit < 0 ? '∞' : p.limit
    say(card.figure, `${p.in_use}/${limit}`)
    say(card.waiting, p.waiting ? `${p.waiting} waiting` : '')
    const full = p.limit > 0 ? Math.min(p.in_use / p.limit, 1) : p.in_use ? 0.5 : 0
    card.bar.firstChild.style.width = `${full * 100}%`
    card.el.dataset.short = String(p.waiting > 0) // a full pool that no task waits for needs no attention
    card.el.title = `${p.name}: ${p.in_use} of ${limit} slots in use, ${p.waiting} waiting`
  }
}
