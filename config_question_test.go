package bgagent_test

import (
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestAFileSetsWhatHappensToQuestions(t *testing.T) {
	with := []string{bgagent.ToolBackgroundMessage}
	all := bgagent.Config{Ask: true, ModelsMayPermit: true, OptionalTools: with}
	for _, c := range []struct {
		files []string // members of the section background_task in each file
		was   bgagent.Config
		want  bgagent.Config
	}{
		{[]string{`"ask": true, "modelsMayPermit": true, "backgroundMessage": true`}, bgagent.Config{}, all},
		{[]string{`"ask": true`, `"backgroundMessage": true`}, bgagent.Config{}, bgagent.Config{Ask: true, OptionalTools: with}},
		{[]string{`"ask": true, "modelsMayPermit": true`, `"modelsMayPermit": false`}, bgagent.Config{}, bgagent.Config{Ask: true}},
		{[]string{`"ask": true`, `"ask": null`}, bgagent.Config{}, bgagent.Config{}},
		{[]string{`"backgroundMessage": true`}, all, all},
		{[]string{`"ask": false, "modelsMayPermit": false, "backgroundMessage": false`}, all, bgagent.Config{OptionalTools: []string{}}},
		{[]string{`"ask": null, "modelsMayPermit": null, "backgroundMessage": null`}, all, all},
	} {
		var files bgagent.FileConfig
		for _, members := range c.files {
			f, err := bgagent.ParseConfig("f.json", inSection(members))
			require.NoError(t, err)
			files = files.Merge(f)
		}
		files.Apply(&c.was)
		require.Equal(t, c.want, c.was, "%q", c.files)
	}
	for _, bad := range []string{`"ask": 1`, `"ask": "yes"`, `"modelsMayPermit": []`, `"backgroundMessage": "background_message"`} {
		_, err := bgagent.ParseConfig("f.json", inSection(bad))
		require.ErrorContains(t, err, "it must be true or false, or null", bad)
	}
	_, err := bgagent.ParseConfig("f.json", inSection(`"modelsMayPermits": true`))
	require.ErrorContains(t, err, "did you mean modelsMayPermit?")
	text, err := bgagent.FormatConfig(all)
	require.NoError(t, err)
	f, err := bgagent.ParseConfig("f.json", text)
	require.NoError(t, err)
	var again bgagent.Config
	f.Apply(&again)
	require.Equal(t, all, again)
}
