//go:build unix

package acp

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// startError returns the error of a session that cannot be created.
func startError(t *testing.T, cfg Config) string {
	t.Helper()
	c := open(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := c.CreateSession(ctx, bgagent.SessionSpec{})
	require.Error(t, err)
	if cfg.Auth != "" || cfg.Env == nil || cfg.Env[0] != "FAKE_AGENT=auth" { // with the fault "auth" and without Config.Auth, the process keeps running and waits for a login
		require.Zero(t, c.processes(), "a failed start has left a process")
	}
	return err.Error()
}

func TestAStartThatFailsSaysWhatToDo(t *testing.T) {
	in := func(edit func(*Config), fault string) Config {
		cfg := program(t, fault)
		edit(&cfg)
		return cfg
	}
	same := func(*Config) {}
	for name, test := range map[string]struct {
		cfg  Config
		want []string
	}{
		"not installed":     {Config{Command: []string{"no-such-agent"}}, []string{`"no-such-agent"`, "no program", "install it"}},
		"exits at once":     {in(same, "exit"), []string{"exit status 3", "cannot find my configuration"}},
		"prints garbage":    {in(same, "noise"), []string{"something other than JSON-RPC", "tick"}},
		"prints one line":   {in(same, "endless"), []string{"a line of more than 32 MiB", "xxx"}},
		"says nothing":      {in(func(c *Config) { c.StartTimeout = 300 * time.Millisecond }, "mute"), []string{"initialize", "Config.StartTimeout is 300ms"}},
		"answers nothing":   {in(func(c *Config) { c.StartTimeout = time.Second }, "silent"), []string{"initialize", "Config.StartTimeout is 1s"}},
		"refuses":           {in(same, "refuse"), []string{"refused to initialize", "not today"}},
		"another version":   {in(same, "version"), []string{"version 99", "version 1", "update"}},
		"wants to be known": {in(same, "auth"), []string{"wants authentication", "set Config.Auth (there are: key, login)"}},
		"unknown method":    {in(func(c *Config) { c.Auth = "retina" }, "auth"), []string{`no authentication method "retina"`, "key, login"}},
		"failing method":    {in(func(c *Config) { c.Auth = "login" }, "auth"), []string{`the method "login"`, "there is no browser"}},
		"directory is gone": {in(func(c *Config) { c.Dir = filepath.Join(c.Dir, "gone") }, ""), []string{"gone cannot be used", "create it"}},
		"directory is none": {in(func(c *Config) { c.Dir = os.Args[0] }, ""), []string{"is a file"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := startError(t, test.cfg)
			t.Log(got)
			for _, want := range test.want {
				require.Contains(t, got, want)
			}
		})
	}
}

func TestTheWaitForASessionIsBounded(t *testing.T) {
	c := open(t, program(t, "nosession"))
	_, err := c.ready(t.Context(), "")
	require.NoError(t, err)
	c.cfg.StartTimeout = 100 * time.Millisecond // the agent is running, so from now on the limit is only for requests
	_, err = c.CreateSession(t.Context(), bgagent.SessionSpec{})
	require.ErrorContains(t, err, "no answer to the request to create a session")
	require.ErrorContains(t, err, "Config.StartTimeout is 100ms")
}

func TestOutputOutsideTheProtocolIsSkipped(t *testing.T) {
	c := open(t, program(t, "prose"))
	id := create(t, c)
	e := prompt(t, c, id, "raw and more prose\nsay hello\nraw {\"jsonrpc\":\"2.0\",\"method\":\"unheard/of\"}\nraw []\nraw {\"jsonrpc\":\"2.0\",\"id\":\"x\",\"result\":1}")
	require.NoError(t, e.err)
	require.Equal(t, "hello", e.Text)
}

func TestAnAgentIsAuthenticated(t *testing.T) {
	cfg := program(t, "auth")
	cfg.Auth = "key"
	c := open(t, cfg)
	require.Equal(t, "hello", prompt(t, c, create(t, c), "say hello").Text)
}

func TestTheNextSessionRetriesAFailedStart(t *testing.T) {
	flag := filepath.Join(tempdir.New(t), "flag")
	self, err := os.Executable()
	require.NoError(t, err)
	cfg := program(t, "")
	cfg.Command = []string{"/bin/sh", "-c", `test -e "$0" && exec "$1"; echo "not yet" >&2; exit 7`, flag, self}
	c := open(t, cfg)
	_, err = c.CreateSession(t.Context(), bgagent.SessionSpec{})
	require.ErrorContains(t, err, "exit status 7")
	require.ErrorContains(t, err, "not yet")
	require.NoError(t, os.WriteFile(flag, nil, 0o600))
	require.Equal(t, "hello", prompt(t, c, create(t, c), "say hello").Text)
}

func TestManySessionsShareOneStart(t *testing.T) {
	c := open(t, program(t, ""))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, err := c.CreateSession(t.Context(), bgagent.SessionSpec{})
			require.NoError(t, err)
		})
	}
	wg.Wait()
	require.Equal(t, 1, c.processes())
	require.Equal(t, 20, c.known())
}

func TestACallerWhoLeavesDoesNotStopTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := piped(t, Config{}, func() *fakeAgent {
			time.Sleep(10 * time.Second)
			return &fakeAgent{}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := c.CreateSession(ctx, bgagent.SessionSpec{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		create(t, c)
		require.Equal(t, 10*time.Second, time.Since(began))
		require.Equal(t, 1, c.processes())
	})
}

func TestASessionNeedsItsDirectory(t *testing.T) {
	c := open(t, program(t, ""))
	dir := tempdir.New(t)
	id, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Directory: dir, Parent: "up"})
	require.NoError(t, err)
	require.Equal(t, dir, prompt(t, c, id, "dir").Text)
	info, err := c.FindSession(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, bgagent.SessionInfo{Parent: "up", Directory: dir}, info)
	_, err = c.CreateSession(t.Context(), bgagent.SessionSpec{Directory: filepath.Join(dir, "gone")})
	require.ErrorContains(t, err, "gone cannot be used; create it, or name another")
}

func TestAnAgentGetsOnlyTheEnvironmentThatIsPassedOn(t *testing.T) {
	t.Setenv("ACP_TEST_SECRET", "hidden")
	t.Setenv("BGAGENT_TURN", "outer")
	t.Setenv("BGAGENT_DEPTH", "2")
	t.Setenv("BGAGENT_INSTANCE", "outer")
	t.Setenv("ACP_TEST_KEY", "shown")
	t.Setenv("ACP_ALL_OF_THEM", "shown too")
	cfg := program(t, "", "ACP_TEST_KEY", "ACP_TEST_SET=1=2", "ACP_TEST_UNSET", "ACP_ALL*")
	cfg.Instance = "this-life"
	c := open(t, cfg)
	id := create(t, c)
	for name, want := range map[string]string{
		"ACP_TEST_SECRET": "", "ACP_TEST_KEY": "shown", "ACP_TEST_SET": "1=2", "ACP_TEST_UNSET": "", "ACP_ALL_OF_THEM": "shown too", "PATH": os.Getenv("PATH"),
	} {
		require.Equal(t, name+"="+want, prompt(t, c, id, "env "+name).Text)
	}
	require.Regexp(t, "^BGAGENT_TURN=outer/.", prompt(t, c, id, "env BGAGENT_TURN").Text)
	require.Equal(t, "BGAGENT_DEPTH=3", prompt(t, c, id, "env BGAGENT_DEPTH").Text)
	require.Equal(t, "BGAGENT_INSTANCE=outer/this-life", prompt(t, c, id, "env BGAGENT_INSTANCE").Text)
}

func TestAConfigurationIsChecked(t *testing.T) {
	for want, cfg := range map[string]Config{
		"acp.Config.Command": {},
		"acp.Config.Env":     {Command: []string{"x"}, Env: []string{"=x"}},
		"BGAGENT_TURN":       {Command: []string{"x"}, Env: []string{"BGAGENT_TURN=1"}},
		"BGAGENT_INSTANCE":   {Command: []string{"x"}, Env: []string{"BGAGENT_INSTANCE=1"}},
		"Config.Instance":    {Command: []string{"x"}, Instance: "a/b"},
		"acp.Config.Agents":  {Command: []string{"x"}, Agents: map[string]Agent{" ": {}}},
		"acp.Config.Files":   {Command: []string{"x"}, Files: 9},
		"StartTimeout":       {Command: []string{"x"}, StartTimeout: -1},
		"CancelGrace":        {Command: []string{"x"}, CancelGrace: -1},
		"CloseGrace":         {Command: []string{"x"}, CloseGrace: -1},
		"MaxHistory":         {Command: []string{"x"}, MaxHistory: -1},
	} {
		_, err := New(cfg)
		var input *bgagent.InputError
		require.ErrorAs(t, err, &input)
		require.Contains(t, err.Error(), want)
	}
}

func TestMCPServersAreHandedToTheSession(t *testing.T) {
	var list []MCPServer
	cfg := program(t, "")
	cfg.MCPServers = func(s bgagent.SessionSpec) []MCPServer {
		require.Equal(t, "bg_1", s.Task)
		return list
	}
	c := open(t, cfg)
	require.Equal(t, "0", prompt(t, c, create(t, c), "mcp").Text)
	list = []MCPServer{{Name: "one", Command: []string{"server", "-v"}, Env: map[string]string{"A": "1"}}}
	require.Equal(t, "1", prompt(t, c, create(t, c), "mcp").Text)
	for want, bad := range map[string]MCPServer{
		"has no name":             {Command: []string{"x"}},
		"either Command or URL":   {Name: "none"},
		"servers that are comman": {Name: "web", URL: "http://127.0.0.1:1"},
	} {
		list = []MCPServer{bad}
		_, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Task: "bg_1"})
		require.ErrorContains(t, err, want)
	}
}
