package e2e

import (
	"bytes"
	"context"
	"flag"
	"image/png"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/internal/tempdir"
)

// givenPage is the page that TestAGlanceAtThePageOfThreeHosts checks. A test of cmd/bgagent serves the page
// and runs this test.
var givenPage = flag.String("e2e.page", "", "address of a page with the tasks of cmd/bgagent/glance_e2e_linux_test.go")

func TestAParkedTaskSaysUntilWhen(t *testing.T) {
	at := time.Now().Add(time.Hour)
	m := newManager(t, map[string]inproc.Agent{
		"refused": func(context.Context, *inproc.Turn) (string, error) {
			return "", &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, RetryAt: at, Next: bgagent.NextRepeat}
		},
		"asks": func(ctx context.Context, turn *inproc.Turn) (string, error) {
			return turn.Ask(ctx, bgagent.Question{Kind: bgagent.QuestionChoice, Title: "Which branch?", Options: []string{"main", "next"}})
		},
	}, bgagent.Config{Ask: true})
	id := launch(t, m, "main", "refused", "first")
	launch(t, m, "main", "asks", "second")
	for _, s := range []screen{desktop, phone} {
		p := open(t, serve(t, m, dashboard.Config{}), s)
		p.until(rowWith("first") + `?.dataset.state === 'parked'`)
		task, err := m.Get(id)
		require.NoError(t, err)
		require.False(t, task.Until.Before(at))
		state := rowWith("first") + `.querySelector('.c-state')`
		require.Equal(t, "parked until "+task.Until.Local().Format("Mon 15:04"), eval[string](p, state+`.textContent`))
		require.True(t, eval[bool](p, wholly(state)), "the time is not cut off")
		p.until(rowWith("second") + `.querySelector('.c-state').textContent === 'asks'`)
	}
}

// wholly is an expression that is true if an element is on the screen and its text is not cut off. The widths
// of elements are rounded, so the width of the text itself is measured.
func wholly(element string) string {
	return `(e => {
		const text = document.createRange()
		text.selectNodeContents(e)
		const [t, r] = [text.getBoundingClientRect(), e.getBoundingClientRect()]
		return t.width > 0 && t.width <= r.width && r.left >= 0 && r.right <= innerWidth && r.bottom <= innerHeight
	})(` + element + `)`
}

// TestAGlanceAtThePageOfThreeHosts checks that the page shows, without a click and even on a phone, which
// tasks are running, stuck, failed or waiting, together with the times, the reasons and the costs. With
// -e2e.pictures, it makes the pictures for the README.
func TestAGlanceAtThePageOfThreeHosts(t *testing.T) {
	if *givenPage == "" {
		t.Skip("no page is given; cmd/bgagent runs this test with -e2e.page")
	}
	type cell struct{ task, class, text string }
	for name, s := range map[string]screen{"glance": {width: 1240, height: 560, scale: 1}, "glance-phone": {width: 390, height: 844, scale: 1.25, phone: true}} {
		p := open(t, *givenPage, s)
		p.until(rowWith("mend the login test") + `?.dataset.silent`)
		chips := map[string]string{"running": "3", "queued": "4", "parked": "1", "failed": "1", "cancelled": "0", "done": "1"}
		for chip, n := range chips {
			p.until(`document.querySelector('#chips [data-show=` + chip + `] b').textContent === '` + n + `'`)
		}
		total := `document.querySelector('#pools .pool')`
		require.Equal(t, "total3/35 waiting", eval[string](p, total+`.textContent`))
		require.True(t, eval[bool](p, wholly(total)), "what the queued tasks wait for is on the screen")
		for _, want := range []cell{
			{"write the summary", "c-state", "running"},
			{"mend the login test", "c-state", "running"},
			{"mend the login test", "c-heard", "silent "},
			{"clean the build", "c-state", "asks"},
			{"clean the build", "c-last", "bash"},
			{"ask the archive", "c-state", "parked until "},
			{"ask the archive", "c-last", "too many requests"},
			{"read the schema", "c-state", "error"},
			{"read the schema", "c-last", "codex: the schema is missing"},
			{"plan the migration", "below", "1 failed"},
			{"plan the migration", "c-cost", "$0."},
			{"review the API", "c-state", "queued"},
		} {
			e := rowWith(want.task) + `.querySelector('.` + want.class + `')`
			require.Contains(t, eval[string](p, e+`.textContent`), want.text, "%s: %s", name, want.task)
			if want.class == "c-last" { // a reason can be longer than its cell
				require.Greater(t, eval[float64](p, e+`.getBoundingClientRect().width`), 60., "%s: %s", name, want.task)
				continue
			}
			require.True(t, eval[bool](p, wholly(e)), "%s: %s of %s is cut off", name, want.class, want.task)
		}
		require.Equal(t, "codex: the schema is missing", eval[string](p, rowWith("read the schema")+`.querySelector('.c-last').textContent`))
		shot := call(p, page.CaptureScreenshot, page.CaptureScreenshotParams{}).Data
		picture, err := png.Decode(bytes.NewReader(shot))
		require.NoError(t, err)
		var small bytes.Buffer
		require.NoError(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, picture))
		require.Less(t, small.Len(), biggestPicture, name)
		folder := tempdir.New(t)
		if *keepPictures {
			folder = filepath.Join("..", "..", "docs", "images")
		}
		require.NoError(t, os.WriteFile(filepath.Join(folder, name+".png"), small.Bytes(), 0o644))
	}
}
