package opencode_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/opencode"
)

func TestNewNamesTheFieldThatIsWrong(t *testing.T) {
	for want, cfg := range map[string]opencode.Config{
		`opencode.Config.URL: "127.0.0.1:4096" is not the address of a server; it should look like http://127.0.0.1:4096`: {URL: "127.0.0.1:4096"},
		`opencode.Config.URL: "ftp://x" is not the address`:                                                               {URL: "ftp://x"},
		`opencode.Config.URL: "http://h/?a=b" is not the address`:                                                         {URL: "http://h/?a=b"},
		`opencode.Config.URL: "http://h/?" is not the address`:                                                            {URL: "http://h/?"},
		`opencode.Config.URL: contains a user or a password; put them into`:                                               {URL: "http://opencode:secret@h"},
		`opencode.Config.Username: is set and Password is not`:                                                            {Username: "me"},
		`opencode.Config.Directory: "src" is not an absolute path`:                                                        {Directory: "src"},
		`opencode.Config.Model: the model "opus" should be written provider/`:                                             {Model: "opus"},
		`opencode.Config.Timeout: -1s is negative; it must be positive, or 0`:                                             {Timeout: -time.Second},
		`opencode.Config.HTTPClient: has a Timeout of 1s, which would cut off`:                                            {HTTPClient: &http.Client{Timeout: time.Second}},
	} {
		_, err := opencode.New(cfg)
		var in *bgagent.InputError
		require.ErrorAs(t, err, &in)
		assert.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), "secret")
	}
	for _, cfg := range []opencode.Config{{}, {URL: "https://h/base/", Directory: `C:\work`, Model: "a/b/c", Password: "x"}, {Directory: `\\host\share`}} {
		c, err := opencode.New(cfg)
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NoError(t, c.Close(), "again")
	}
}

func TestAPrefixOfTheAddressIsKept(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		var paths []string
		r.f.intercept(func(req *http.Request) *http.Response {
			paths = append(paths, req.URL.String())
			return answer(http.StatusOK, `{"healthy":true,"version":"1"}`)
		})
		_, err := newClient(t, opencode.Config{URL: "http://proxy/opencode/", HTTPClient: r.f.client()}).Check(t.Context())
		require.NoError(t, err)
		assert.Equal(t, []string{"http://proxy/opencode/global/health"}, paths)
	})
}

func TestIdsHaveTheFormOfTheServers(t *testing.T) {
	// The time and the id were recorded from a message that a real server sent.
	at := opencode.StampAt(1795341986460)
	got, ok := opencode.StampOf("msg_202b8aa9c001RCO5tpPsXQmoF9")
	require.True(t, ok)
	assert.Equal(t, at+1, got)
	id := opencode.MessageID(at+2, "bgp_a.1.1")
	assert.Regexp(t, `^msg_202b8aa9c002[0-9A-Za-z]{14}$`, id)
	assert.Equal(t, id, opencode.MessageID(at+2, "bgp_a.1.1"), "the id is the same each time")
	assert.NotEqual(t, id[16:], opencode.MessageID(at+2, "bgp_a.1.2")[16:])
	assert.Equal(t, "prt_"+id[4:], opencode.PartID(id))
	for _, bad := range []string{"", "msg", "msg_", "msg_202b8aa9c00", "msg_202b8aa9c00z", "msgx202b8aa9c001"} {
		_, ok := opencode.StampOf(bad)
		assert.False(t, ok, bad)
	}
}

func TestModelsAreProviderAndName(t *testing.T) {
	m, err := opencode.ParseModel("openrouter/anthropic/claude")
	require.NoError(t, err)
	assert.Equal(t, "openrouter", m.ProviderID)
	assert.Equal(t, "anthropic/claude", m.ID)
	for _, bad := range []string{"opus", "/opus", "anthropic/", "/"} {
		_, err := opencode.ParseModel(bad)
		assert.Error(t, err, bad)
	}
}
