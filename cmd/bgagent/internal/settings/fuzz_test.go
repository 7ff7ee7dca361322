package settings

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func FuzzLoad(f *testing.F) {
	for doc := range documents {
		f.Add([]byte(doc))
	}
	path := filepath.Join(f.TempDir(), "bgagent.jsonc")
	f.Fuzz(func(t *testing.T, data []byte) {
		require.NoError(t, os.WriteFile(path, data, 0o600))
		s, err := Load(path)
		if err == nil {
			for _, a := range s.Agents {
				require.NotEmpty(t, a.Kind)
				require.NotEmpty(t, a.Fields())
			}
			return
		}
		var place *bgagent.ConfigFileError
		require.True(t, errors.As(err, &place))
		require.Positive(t, place.Line)
	})
}
