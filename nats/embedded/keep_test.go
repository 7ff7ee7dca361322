package embedded_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/nats/embedded"
)

// deletions returns a channel that receives the message about each deleted record.
func (c *content) deletions(t *testing.T) chan *nats.Msg {
	t.Helper()
	js, err := c.admin.JetStream()
	require.NoError(t, err)
	all := make(chan *nats.Msg, 1000)
	_, err = js.Subscribe("bgagent."+c.name+".r.*", func(m *nats.Msg) {
		if m.Header.Get("Bgagent-Deleted") != "" {
			all <- m
		}
	}, nats.BindStream("BGAGENT_"+c.name), nats.OrderedConsumer(), nats.DeliverAll())
	require.NoError(t, err)
	return all
}

// untilParts waits until the stream has the given number of subjects with text parts.
func (c *content) untilParts(t *testing.T, want int) {
	t.Helper()
	js, err := c.admin.JetStream()
	require.NoError(t, err)
	for {
		info, err := js.StreamInfo("BGAGENT_"+c.name, &nats.StreamInfoRequest{SubjectsFilter: "bgagent." + c.name + ".x.>"}, nats.Context(t.Context()))
		require.NoError(t, err)
		if len(info.State.Subjects) == want {
			return
		}
	}
}

// The function "some" returns a batch of 120 ended tasks, a live task, and an ended task whose end has not
// been reported. The first 100 ended tasks ended an hour ago, in the order of their keys. The end times of
// the other 20 ended tasks are an hour in the future.
func some() *bgagent.StoreBatch {
	owed := ended("owed", time.Now().Add(-1000*time.Hour))
	owed.Due = true
	b := &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task("live"), owed}}
	start := time.Now().Add(-time.Hour)
	for i := range 120 {
		if i == 100 {
			start = start.Add(2 * time.Hour)
		}
		b.Records = append(b.Records, ended(fmt.Sprintf("task_%03d", i), start.Add(time.Duration(i)*time.Millisecond)))
	}
	for _, r := range b.Records {
		b.Texts = append(b.Texts, bgagent.StoreText{Record: r.Key, Name: "prompt.1", Text: "the prompt of " + r.Key})
	}
	return b
}

func TestEndedTasksAboveTheLimitsAreDeletedWithTheirTexts(t *testing.T) {
	server := start(t)
	for name, o := range map[string]bgnats.StoreOptions{
		"number": {KeepTasks: 20},
		"age":    {KeepFor: 30 * time.Minute},
		"bytes":  {KeepBytes: 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := newStores(t, server)
			s, _ := c.store(bgnats.StoreOptions{KeepFor: -1, KeepTasks: -1, KeepBytes: -1})
			open(t, s, 1)
			write(t, s, some())
			require.NoError(t, s.Close())

			s, _ = c.store(o)
			gone := c.deletions(t)
			contents := open(t, s, 2)
			require.Len(t, contents.Records, 2)
			most := map[string]int{"number": 100, "age": 100, "bytes": 120}[name]
			for i := range most {
				m := <-gone
				require.Equal(t, fmt.Sprintf("%q", fmt.Sprintf("task_%03d", i)), m.Header.Get("Bgagent-Deleted"))
				require.Equal(t, "168h", m.Header.Get("Nats-TTL"))
			}
			c.untilParts(t, 122-most)
			page, err := s.History(t.Context(), bgagent.StoreQuery{Limit: 1000})
			require.NoError(t, err)
			require.Len(t, page, 120-most+1)
			require.Equal(t, "owed", page[len(page)-1].Key)
			text, err := s.Text(t.Context(), "live", "prompt.1")
			require.NoError(t, err)
			require.Equal(t, "the prompt of live", text)
			_, err = s.Text(t.Context(), "task_000", "prompt.1")
			require.ErrorIs(t, err, bgagent.ErrNoText)
			write(t, s, &bgagent.StoreBatch{Number: 2, Records: []bgagent.StoreRecord{task("task_000")}})
			require.NoError(t, s.Close())
			s, _ = c.store(bgnats.StoreOptions{KeepFor: -1, KeepTasks: -1, KeepBytes: -1})
			contents = open(t, s, 3)
			require.Empty(t, contents.Damage)
			require.Len(t, contents.Records, 3)
		})
	}
}

func TestTextsOfADeletedRecordDoNotComeBack(t *testing.T) {
	c := newStores(t, start(t))
	s, p := c.store(bgnats.StoreOptions{})
	open(t, s, 1)
	text := []bgagent.StoreText{{Record: "a", Name: "result.1", Text: "of the first record"}}
	write(t, s, &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task("a")}, Texts: text})
	left := c.last("x." + token("a") + ".t" + token("result.1") + ".0")
	write(t, s, &bgagent.StoreBatch{Number: 2, Delete: []string{"a"}})
	c.untilParts(t, 0)
	p.crash()

	js, err := c.admin.JetStream()
	require.NoError(t, err)
	_, err = js.PublishMsg(left) // as if the process had died before it deleted the text
	require.NoError(t, err)
	s, _ = c.store(bgnats.StoreOptions{})
	require.Empty(t, open(t, s, 2).Records)
	write(t, s, &bgagent.StoreBatch{Number: 3, Records: []bgagent.StoreRecord{task("a")}})
	_, err = s.Text(t.Context(), "a", "result.1")
	require.ErrorIs(t, err, bgagent.ErrNoText)
	text[0].Text = "of the second record"
	write(t, s, &bgagent.StoreBatch{Number: 4, Texts: text})
	got, err := s.Text(t.Context(), "a", "result.1")
	require.NoError(t, err)
	require.Equal(t, "of the second record", got)
}

func TestTheNextOwnerDeletesTheTextsThatTheLastOneHasLeft(t *testing.T) {
	c := newStores(t, start(t))
	s, p := c.store(bgnats.StoreOptions{})
	open(t, s, 1)
	b := &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task("a"), task("b")}}
	b.Texts = []bgagent.StoreText{{Record: "a", Name: "result.1", Text: "x"}, {Record: "b", Name: "result.1", Text: "y"}}
	write(t, s, b)
	p.at(func(f frame) verdict { // the process dies after the record is deleted
		if f.commit {
			p.dead = true
			return cutAfter
		}
		return pass
	})
	require.Error(t, s.Write(t.Context(), &bgagent.StoreBatch{Number: 2, Delete: []string{"a"}}))
	p.crash()
	s, _ = c.store(bgnats.StoreOptions{})
	require.Len(t, open(t, s, 2).Records, 1)
	c.untilParts(t, 1)
}

func TestALostRecordIsNoticed(t *testing.T) {
	c := newStores(t, start(t))
	s, p := c.store(bgnats.StoreOptions{})
	open(t, s, 1)
	write(t, s, &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task("a"), task("b")}})
	p.crash()
	js, err := c.admin.JetStream()
	require.NoError(t, err)
	stream := "BGAGENT_" + c.name
	raw, err := js.GetLastMsg(stream, "bgagent."+c.name+".r."+token("a"))
	require.NoError(t, err)
	require.NoError(t, js.DeleteMsg(stream, raw.Sequence))
	s, _ = c.store(bgnats.StoreOptions{})
	contents := open(t, s, 2)
	require.Equal(t, []bgagent.StoreRecord{task("b")}, contents.Records)
	require.Len(t, contents.Damage, 1)
	require.Equal(t, "the stream has 1 records of live or owed tasks, but 2 were written: some were lost or changed", contents.Damage[0].Problem)
}

func TestARecordOutsideOfABatchIsSetAside(t *testing.T) {
	c := newStores(t, start(t))
	s, _ := c.store(bgnats.StoreOptions{})
	open(t, s, 1)
	write(t, s, &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task("a"), task("b")}})
	c.change("r."+token("a"), func(*nats.Msg) {})
	err := s.Write(t.Context(), &bgagent.StoreBatch{Number: 2, Records: []bgagent.StoreRecord{task("a")}})
	require.ErrorContains(t, err, "another program has changed the stream")
	require.NotErrorIs(t, err, bgagent.ErrUncertain)
	require.NoError(t, s.Close())
	c.change("r."+token("a"), func(*nats.Msg) {})
	contents := open(t, s, 2)
	require.Equal(t, []bgagent.StoreRecord{task("b")}, contents.Records)
	require.Equal(t, []bgagent.StoreDamage{{Key: "a", Problem: "its batch is incomplete, or another program has written it"}}, contents.Damage)
}

func TestAStreamThatCouldLoseRecordsIsRefused(t *testing.T) {
	server := start(t)
	good := func(c *content) jetstream.StreamConfig {
		r := "bgagent." + c.name
		return jetstream.StreamConfig{
			Name: "BGAGENT_" + c.name, Subjects: []string{r + ".m", r + ".r.*", r + ".x.*.*.*", r + ".j.*.*"}, MaxMsgsPerSubject: 1,
			Discard: jetstream.DiscardNew, AllowDirect: true, AllowMsgTTL: true, AllowAtomicPublish: true,
		}
	}
	for want, change := range map[string]func(*jetstream.StreamConfig){
		"":                                        func(*jetstream.StreamConfig) {},
		"max_age is 1h0m0s and must be 0s":        func(s *jetstream.StreamConfig) { s.MaxAge = time.Hour },
		"discard is old and must be new":          func(s *jetstream.StreamConfig) { s.Discard = jetstream.DiscardOld },
		"storage is memory and must be file":      func(s *jetstream.StreamConfig) { s.Storage = jetstream.MemoryStorage },
		"allow_atomic is false and must be true":  func(s *jetstream.StreamConfig) { s.AllowAtomicPublish = false },
		"max_msgs_per_subject is 2 and must be 1": func(s *jetstream.StreamConfig) { s.MaxMsgsPerSubject = 2 },
	} {
		c := newStores(t, server)
		config := good(c)
		change(&config)
		js, err := jetstream.New(c.admin)
		require.NoError(t, err)
		_, err = js.CreateStream(t.Context(), config)
		require.NoError(t, err)
		s, _ := c.store(bgnats.StoreOptions{})
		_, err = s.Open(t.Context(), owner(1))
		if want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, want)
		}
	}
}

func TestAFullStreamIsReportedAsFull(t *testing.T) {
	c := newStores(t, start(t))
	s, p := c.store(bgnats.StoreOptions{})
	open(t, s, 1)
	require.NoError(t, s.Close())
	js, err := jetstream.New(c.admin)
	require.NoError(t, err)
	stream, err := js.Stream(t.Context(), "BGAGENT_"+c.name)
	require.NoError(t, err)
	config := stream.CachedInfo().Config
	config.MaxBytes = 100_000
	_, err = js.UpdateStream(t.Context(), config)
	require.NoError(t, err)

	open(t, s, 2)
	write(t, s, &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task("a")}})
	big := task("b")
	big.Data = make([]byte, 120_000)
	err = s.Write(t.Context(), &bgagent.StoreBatch{Number: 2, Records: []bgagent.StoreRecord{big}})
	require.ErrorIs(t, err, bgnats.ErrFull)
	require.NotErrorIs(t, err, bgagent.ErrUncertain)
	write(t, s, &bgagent.StoreBatch{Number: 2, Records: []bgagent.StoreRecord{task("b")}})
	p.crash()
	s, _ = c.store(bgnats.StoreOptions{})
	require.Equal(t, []bgagent.StoreRecord{task("a"), task("b")}, open(t, s, 3).Records)
}

func TestWrongArgumentsAreNamed(t *testing.T) {
	server := start(t)
	nc, err := nats.Connect("", server.Connection())
	require.NoError(t, err)
	for _, x := range []struct {
		nc         *nats.Conn
		name, want string
	}{
		{nc, "", `the name "" of a store must have 1 to 64 characters, each of which is a letter, a digit, - or _`},
		{nc, "a.b", `the name "a.b" of a store must have`},
		{nil, "tasks", "NewStore needs a connection"},
	} {
		_, err := bgnats.NewStore(x.nc, x.name, bgnats.StoreOptions{}).Open(t.Context(), owner(1))
		require.ErrorContains(t, err, x.want)
	}
	nc.Close()
	_, err = bgnats.NewStore(nc, "tasks", bgnats.StoreOptions{}).Open(t.Context(), owner(1))
	require.ErrorIs(t, err, nats.ErrConnectionClosed)

	_, err = embedded.Start(embedded.Options{})
	require.ErrorContains(t, err, "Options.Dir must name the folder")
	_, err = embedded.Start(embedded.Options{Dir: tempdir.New(t), Listen: "nowhere"})
	require.ErrorContains(t, err, "Options.Listen must be an address such as 127.0.0.1:4222")
	dir := tempdir.New(t)
	first, err := embedded.Start(embedded.Options{Dir: dir})
	require.NoError(t, err)
	require.Empty(t, first.URL())
	_, err = embedded.Start(embedded.Options{Dir: dir})
	require.ErrorContains(t, err, "the folder "+dir+" cannot be used: another server uses it")
	require.NoError(t, first.Close())
	require.NoError(t, first.Close())
}

func TestAUserWithTheDocumentedRightsCanUseAStore(t *testing.T) {
	text, err := os.ReadFile("../../docs/cluster.md")
	require.NoError(t, err)
	rights := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^\| (publish|subscribe) \| (.*) \|$`).FindAllStringSubmatch(string(text), -1) {
		for subject := range strings.SplitSeq(m[2], ", ") {
			rights[m[1]] = append(rights[m[1]], strings.Trim(subject, "`"))
		}
	}
	require.Len(t, rights, 2)
	s, err := embedded.StartWith(embedded.Options{Dir: tempdir.New(t)}, func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: rights["publish"]}, Subscribe: &server.SubjectPermission{Allow: rights["subscribe"]},
		}}}
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	var mu sync.Mutex
	var refused []error
	connect := func() *nats.Conn {
		nc, err := nats.Connect("", s.Connection(), nats.UserInfo("u", "p"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			mu.Lock()
			defer mu.Unlock()
			refused = append(refused, err)
		}))
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		return nc
	}
	first := bgnats.NewStore(connect(), "tasks", bgnats.StoreOptions{Grace: -1})
	open(t, first, 1)
	b := large(1)
	b.Records = append(b.Records, ended("ended", time.Now()))
	write(t, first, b)
	second := bgnats.NewStore(connect(), "tasks", bgnats.StoreOptions{Grace: -1})
	_, err = second.Open(t.Context(), owner(2))
	requireOwner(t, err, 1)
	write(t, first, &bgagent.StoreBatch{Number: 2, Delete: []string{"large_0001"}})
	_, err = first.Text(t.Context(), "large_0000", "result.1")
	require.NoError(t, err)
	page, err := first.History(t.Context(), bgagent.StoreQuery{Limit: 10})
	require.NoError(t, err)
	require.Len(t, page, 1)
	require.NoError(t, first.Close())
	require.Len(t, open(t, second, 2).Records, 1009)
	mu.Lock()
	defer mu.Unlock()
	require.Empty(t, refused)
}
