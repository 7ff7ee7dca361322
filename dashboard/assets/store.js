// The page's data: all tasks, linked as the nodes of a tree. A node is a task, or a session
// that has launched tasks but does not belong to a task.

import { GROUPS, groupOf, isLive, rankOf, stateOf } from './format.js'

class Node {
  constructor(key, task, session) {
    this.key = key
    this.task = task // null for a session
    this.session = session
    this.up = null
    this.kids = []
    this.sorted = true
    this.closed = false
    this.owned = [] // sessions that belong to the task
    this.text = '' // the text for the search, set on demand
    this.first = Infinity // launch number of the session's latest task

    // The following fields are sums over all tasks below the node, at any depth. They are set by
    // the store's method total.
    this.below = 0 // number of tasks
    this.failed = 0 // number of failed tasks
    this.tokens = 0 // including the node's own task
    this.cost = 0 // in US dollars, including the node's own task
    this.live = 0 // number of live tasks directly below the node
    this.states = task ? null : new Map() // for a session: number of tasks by state
  }
}

// above returns the set of a node and all its ancestors.
function above(node) {
  const all = new Set()
  for (let n = node; n; n = n.up) all.add(n)
  return all
}

export class Store {
  tasks = new Map() // by id
  owners = new Map() // by session: the node of the task to which the session belongs
  sessions = new Map() // by session: the node of a session that does not belong to a task
  closed = new Set() // keys of folded nodes
  show = 'all' // the selected group, or "all"
  search = ''
  newest = true
  flat = []
  shape = true // the tree has changed, so flat must be rebuilt
  summed = false // the sums of all nodes are up to date
  fresh = null // while a snapshot of all tasks is arriving: the ids of its tasks so far
  groups = {} // number of tasks by group, and of all tasks as "all"
  sum = { tokens: 0, cost: 0, priced: 0 } // tokens and cost of all tasks; number of tasks with a cost

  // apply applies a batch to the store. A batch holds the state of tasks, never a difference. The
  // first batch of a stream begins a snapshot of all tasks. Until the snapshot is complete, the
  // tasks that the store already has stay, so that the page does not jump after each reconnect.
  apply(batch) {
    if (batch.first) this.fresh = new Set()
    for (const task of batch.rows ?? []) {
      this.#put(task)
      this.fresh?.add(task.id)
    }
    for (const id of batch.gone ?? []) this.#drop(id)
    if (this.fresh && !batch.more) {
      for (const id of [...this.tasks.keys()]) if (!this.fresh.has(id)) this.#drop(id)
      this.fresh = null
    }
    this.summed = false
  }

  // total sums up what is below each node. It always starts from zero, so a missed or repeated
  // update cannot make a sum wrong. The server does not send the row of a waiting task again when
  // one of its children starts or ends, so the number of its live children is also counted here.
  total() {
    if (this.summed) return
    this.summed = true
    this.groups = { all: this.tasks.size }
    for (const name of GROUPS) this.groups[name] = 0
    const sum = (this.sum = { tokens: 0, cost: 0, priced: 0 })
    const nodes = [...this.sessions.values()] // becomes all nodes, each after its parent
    for (let i = 0; i < nodes.length; i++) {
      const node = nodes[i]
      node.root = node.up ? node.up.root : node
      node.below = node.failed = node.live = 0
      node.tokens = node.task?.tokens ?? 0
      node.cost = node.task?.cost ?? 0
      node.states?.clear()
      for (const kid of node.kids) nodes.push(kid)
    }
    for (let i = nodes.length - 1; i >= 0; i--) {
      const { task, up, root } = nodes[i]
      if (!task) continue
      if (task.phase && stateOf(task) === 'waiting') task.waiting = nodes[i].live
      const state = stateOf(task)
      root.states.set(state, (root.states.get(state) ?? 0) + 1)
      this.groups[groupOf(task)]++
      up.tokens += nodes[i].tokens
      up.cost += nodes[i].cost
      sum.tokens += task.tokens ?? 0
      sum.cost += task.cost ?? 0
      if (task.cost) sum.priced++
      up.below += nodes[i].below + 1
      up.failed += nodes[i].failed + (task.status === 'error' ? 1 : 0)
      up.live += isLive(task) ? 1 : 0
    }
  }

  #put(task) {
    let node = this.tasks.get(task.id)
    if (!node) {
      node = new Node(task.id, task, task.session)
      node.closed = this.closed.has(node.key)
      this.tasks.set(task.id, node)
      this.#link(node)
      this.shape = true
    } else {
      const old = node.task
      node.task = task
      node.text = ''
      if (old.parent !== task.parent) {
        this.#unlink(node)
        this.#link(node)
        this.shape = true
      }
      if (old.n !== task.n || rankOf(old) !== rankOf(task)) {
        node.up.sorted = false
        this.shape = true
      }
      if (this.search || (this.show !== 'all' && groupOf(old) !== groupOf(task))) this.shape = true
    }
    if (task.session && (this.owners.get(task.session) !== node || this.sessions.has(task.session))) this.#own(task.session, node)
  }

  // own records that a session belongs to a task. It moves the tasks that the session launched
  // below this task. It does not move the task itself or its ancestors, because they would form a
  // cycle. A cycle has no root, so its tasks would not be shown.
  #own(session, node) {
    this.owners.set(session, node)
    if (!node.owned.includes(session)) node.owned.push(session)
    const stray = this.sessions.get(session)
    if (!stray) return
    const over = above(node)
    const kids = stray.kids.filter(kid => !over.has(kid))
    stray.kids = stray.kids.filter(kid => over.has(kid))
    if (stray.kids.length === 0) this.sessions.delete(session)
    if (kids.length === 0) return
    for (const kid of kids) {
      kid.up = node
      node.kids.push(kid)
    }
    node.sorted = false
    this.shape = true
  }

  #link(node) {
    const session = node.task.parent ?? ''
    let up = this.owners.get(session)
    if (!up || above(up).has(node)) up = this.sessions.get(session)
    if (!up) {
      up = new Node(`session:${session}`, null, session)
      up.closed = this.closed.has(up.key)
      this.sessions.set(session, up)
    }
    node.up = up
    up.kids.push(node)
    up.sorted = false
  }

  #unlink(node) {
    const at = node.up.kids.indexOf(node)
    if (at >= 0) node.up.kids.splice(at, 1)
    if (!node.up.task && node.up.kids.length === 0) this.sessions.delete(node.up.session)
  }

  #drop(id) {
    const node = this.tasks.get(id)
    if (!node) return
    this.tasks.delete(id)
    this.shape = true
    for (const session of node.owned) if (this.owners.get(session) === node) this.owners.delete(session)
    this.#unlink(node)
    const orphans = node.kids
    node.kids = []
    for (const kid of orphans) this.#link(kid) // the orphans are now below a session that does not belong to a task
  }

  fold(node, closed) {
    node.closed = closed
    if (closed) this.closed.add(node.key)
    else this.closed.delete(node.key)
    this.shape = true
  }

  choose(change) {
    Object.assign(this, change)
    for (const up of [...this.sessions.values(), ...this.tasks.values()]) up.sorted &&= !('newest' in change)
    this.shape = true
  }

  // rows returns the visible rows of the tree in order, each with its level and its position
  // among its siblings.
  rows() {
    if (!this.shape) return this.flat
    this.shape = false
    const roots = [...this.sessions.values()]
    for (const root of roots) root.first = root.kids.reduce((n, kid) => Math.max(n, kid.task.n), 0)
    roots.sort((a, b) => (this.newest ? b.first - a.first : a.first - b.first))
    const word = this.search.trim().toLowerCase()
    const any = this.show === 'all'
    const plain = any && !word
    const shown = plain ? null : new Set()
    if (shown) {
      for (const node of this.tasks.values()) {
        if (!(any || groupOf(node.task) === this.show) || (word && !this.#matches(node, word))) continue
        for (let n = node; n && !shown.has(n); n = n.up) shown.add(n)
      }
    }
    this.flat = []
    this.#walk(roots, shown, !plain)
    return this.flat
  }

  #matches(node, word) {
    const t = node.task
    node.text ||= `${t.title} ${t.agent} ${t.model ?? ''} ${t.id} ${t.session ?? ''} ${t.parent ?? ''} ${t.tool ?? ''} ${t.reason ?? ''} ${t.text ?? ''} ${t.process ?? ''}`.toLowerCase()
    return node.text.includes(word)
  }

  // walk appends the rows of the nodes and their descendants. It does not recurse, because
  // the depth of the tree is unbounded. If unfold is true, it also enters folded nodes, so
  // that everything that passes the filter and the search is visible.
  #walk(roots, shown, unfold) {
    const pick = nodes => (shown ? nodes.filter(n => shown.has(n)) : nodes)
    const stack = [{ nodes: pick(roots), at: 0, level: 1 }]
    while (stack.length) {
      const top = stack[stack.length - 1]
      if (top.at === top.nodes.length) {
        stack.pop()
        continue
      }
      const node = top.nodes[top.at++]
      this.#sort(node)
      const kids = node.kids.length ? pick(node.kids) : node.kids
      const open = unfold || !node.closed
      this.flat.push({ node, level: top.level, place: top.at, of: top.nodes.length, kids: kids.length, open, folds: kids.length > 0 && !unfold })
      if (kids.length && open) stack.push({ nodes: kids, at: 0, level: top.level + 1 })
    }
  }

  #sort(node) {
    if (node.sorted) return
    const order = this.newest ? -1 : 1
    node.kids.sort((a, b) => rankOf(a.task) - rankOf(b.task) || order * (a.task.n - b.task.n))
    node.sorted = true
  }

  // summary returns the states of all tasks below a session, each with the number of tasks. Failed
  // tasks are missing, because each row shows their number separately.
  summary(node) {
    return ['asking', 'running', 'waiting', 'parked', 'queued', 'completed', 'cancelled'].filter(s => node.states.has(s)).map(s => [s, node.states.get(s)])
  }
}
