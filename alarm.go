package bgagent

import "time"

// alarm is one deadline in the manager's list. The list is a heap, and one
// timer stands for its earliest entry: a timer or a context for every deadline
// cost more than half of the time of a launch.
type alarm struct {
	at    int64
	index int // in the heap, from 1; 0 when it is not set
	owner alarmOwner
}

// alarmOwner is told, under the lock, that its alarm has rung. The alarm may
// ring early; the owner looks at the clock and sets it again.
type alarmOwner interface {
	ringLocked(m *BackgroundManager, now int64)
}

// alarms is a binary heap by time.
type alarms []*alarm

func (h alarms) up(i int) {
	for i > 0 {
		p := (i - 1) / 2
		if h[p].at <= h[i].at {
			return
		}
		h.swap(i, p)
		i = p
	}
}

func (h alarms) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h[c+1].at < h[c].at {
			c++
		}
		if h[i].at <= h[c].at {
			return
		}
		h.swap(i, c)
		i = c
	}
}

func (h alarms) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

// alarmLocked makes the alarm ring at the given time; 0 takes it out.
func (m *BackgroundManager) alarmLocked(al *alarm, owner alarmOwner, at int64) {
	switch {
	case at == 0 && al.index == 0:
	case at == 0:
		m.disarmLocked(al)
	case al.index == 0:
		al.owner, al.at = owner, at
		m.alarms = append(m.alarms, al)
		al.index = len(m.alarms)
		m.alarms.up(al.index - 1)
	default:
		al.at = at
		m.alarms.up(al.index - 1)
		m.alarms.down(al.index - 1)
	}
}

// alarmByLocked is alarmLocked for a deadline that may ring early: it only ever
// moves the alarm forward, which is cheaper.
func (m *BackgroundManager) alarmByLocked(al *alarm, owner alarmOwner, at int64) {
	if at != 0 && (al.index == 0 || at < al.at) {
		m.alarmLocked(al, owner, at)
	}
}

func (m *BackgroundManager) disarmLocked(al *alarm) {
	i, last := al.index-1, len(m.alarms)-1
	m.alarms.swap(i, last)
	m.alarms[last] = nil
	m.alarms = m.alarms[:last]
	al.index = 0
	if i < last {
		m.alarms.up(i)
		m.alarms.down(i)
	}
}

// ringDueLocked rings every alarm whose time has come.
func (m *BackgroundManager) ringDueLocked(now int64) {
	for len(m.alarms) > 0 && m.alarms[0].at <= now {
		al := m.alarms[0]
		m.disarmLocked(al)
		al.owner.ringLocked(m, now)
	}
}

// armLocked makes the timer stand for the earliest alarm. A timer that stands
// for an earlier time is left alone: it rings once too often and is set again.
func (m *BackgroundManager) armLocked(now int64) {
	if len(m.alarms) == 0 || m.timerOff {
		return
	}
	at := m.alarms[0].at
	if m.timerAt != 0 && m.timerAt <= at {
		return
	}
	d := time.Duration(max(at-now, 0))
	if m.timer == nil {
		m.timer = time.AfterFunc(d, m.tick)
	} else {
		m.timer.Reset(d)
	}
	m.timerAt = at
}

// tick runs on the timer's goroutine.
func (m *BackgroundManager) tick() {
	m.update(func(now int64) {
		m.timerAt = 0
		if m.ticked != nil {
			close(m.ticked)
			return
		}
		m.ringDueLocked(now)
	})
}
