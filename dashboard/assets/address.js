// The address of the page. The part after # holds the selected task, the selected group of tasks,
// the search, the order and the view. Default values are left out.

import { GROUPS } from './format.js'

// parse reads the part of an address after #. It never fails: unknown values become the defaults. A
// part that is not a list of values is treated as the id of a task.
export function parse(hash) {
  const text = hash.replace(/^#/, '')
  const values = new URLSearchParams(text.includes('=') ? text : '')
  const show = values.get('show')
  return {
    task: text.includes('=') ? values.get('task') ?? '' : text,
    show: GROUPS.includes(show) ? show : 'all',
    search: values.get('search') ?? '',
    newest: values.get('order') !== 'oldest',
    view: values.get('view') === 'timeline' ? 'timeline' : 'tree',
  }
}

// format is the inverse of parse. The result is empty if all values are defaults.
export function format({ task, show, search, newest, view }) {
  const values = new URLSearchParams()
  if (task) values.set('task', task)
  if (show !== 'all') values.set('show', show)
  if (search) values.set('search', search)
  if (!newest) values.set('order', 'oldest')
  if (view !== 'tree') values.set('view', view)
  return values.size ? `#${values}` : ''
}
