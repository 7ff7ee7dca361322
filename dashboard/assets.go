package dashboard

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed assets
var assetFiles embed.FS

// asset is one file of the page.
type asset struct {
	content []byte
	kind    string
	tag     string // ETag of the content; a browser uses it to revalidate its copy
}

var assets = readAssets()

// assetKinds holds the content types of the files, by extension. The operating system's types
// are not used, because they differ between systems, and a browser refuses a script with the
// wrong type.
var assetKinds = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

func readAssets() map[string]asset {
	entries, err := assetFiles.ReadDir("assets")
	if err != nil {
		panic("dashboard: bug: " + err.Error())
	}
	all := map[string]asset{}
	for _, e := range entries {
		content, err := assetFiles.ReadFile("assets/" + e.Name())
		kind := assetKinds[path.Ext(e.Name())]
		if err != nil || kind == "" {
			panic(fmt.Sprintf("dashboard: bug: asset %s: %v", e.Name(), err))
		}
		sum := sha256.Sum256(content)
		name := strings.TrimSuffix(e.Name(), "index.html") // the page itself has the empty name
		all[name] = asset{content, kind, `"` + hex.EncodeToString(sum[:8]) + `"`}
	}
	return all
}

// serveAsset serves a file of the page. The empty name means the page itself.
func (h *Handler) serveAsset(w http.ResponseWriter, r *http.Request, name string) {
	a, ok := assets[name]
	if !ok {
		writeError(w, http.StatusNotFound, fmt.Errorf("there is no %q here", name))
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		writeError(w, http.StatusMethodNotAllowed, fmt.Errorf("%s is not allowed here", r.Method))
		return
	}
	w.Header().Set("Content-Type", a.kind)
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("ETag", a.tag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.content))
}
