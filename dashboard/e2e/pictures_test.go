package e2e

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/chromedp/cdproto/page"
	"github.com/stretchr/testify/require"
)

var keepPictures = flag.Bool("e2e.pictures", false, "write the pictures into docs/images")

// biggestPicture is the maximum size of a picture in the repository, in bytes.
const biggestPicture = 150_000

// TestPictures opens the scene of examples/dashboard in every view that the README shows.
func TestPictures(t *testing.T) {
	folder := tempdir.New(t)
	if *keepPictures {
		folder = filepath.Join("..", "..", "docs", "images")
		require.NoError(t, os.MkdirAll(folder, 0o755))
	}
	url := startScene(t)
	light := screen{width: 1240, height: 540, scale: 1}
	dark := light
	dark.dark = true
	small := phone
	small.scale = 1.25 // a picture with all pixels of a phone would be too big
	for _, x := range []struct {
		name   string
		screen screen
		look   func(p *tab)
	}{
		{"dashboard-tree", light, func(p *tab) {
			p.js(`[...document.querySelectorAll('#rows .row[data-state=running]')].at(0).click()`)
			p.until(`detail.querySelectorAll('.messages li').length > 1`)
		}},
		{"dashboard-timeline", dark, func(p *tab) {
			p.click("#tab-time")
			p.until(`document.getElementById('time-size').offsetHeight > 200`)
			p.click("#spans button")
			p.until(`document.querySelector('#spans button').ariaPressed === 'true'`)
		}},
		{"dashboard-phone", small, func(*tab) {}},
	} {
		p := open(t, url, x.screen)
		p.until(`document.querySelectorAll('#rows .row[data-state=running]').length > 2`)
		x.look(p)
		shot := call(p, page.CaptureScreenshot, page.CaptureScreenshotParams{}).Data
		picture, err := png.Decode(bytes.NewReader(shot))
		require.NoError(t, err)
		require.InDelta(t, float64(x.screen.width)*x.screen.scale, picture.Bounds().Dx(), 1)
		var small bytes.Buffer // the browser's compression is quick rather than good
		require.NoError(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, picture))
		require.Less(t, small.Len(), biggestPicture, x.name)
		require.NoError(t, os.WriteFile(filepath.Join(folder, x.name+".png"), small.Bytes(), 0o644))
	}
}

// startScene runs examples/dashboard faster than real time until there are tasks in every state.
// It returns the page's address.
func startScene(t *testing.T) (url string) {
	chromium(t)
	program := filepath.Join(tempdir.New(t), "dashboard")
	out, err := exec.Command("go", "build", "-o", program, "github.com/bgagent/bgagent/examples/dashboard").CombinedOutput()
	require.NoError(t, err, string(out))
	scene := exec.Command(program, "-addr", "127.0.0.1:0", "-speed", "8")
	stdout, err := scene.StdoutPipe()
	require.NoError(t, err)
	scene.Stderr = os.Stderr
	require.NoError(t, scene.Start())
	t.Cleanup(func() {
		require.NoError(t, scene.Process.Signal(syscall.SIGTERM))
		require.NoError(t, scene.Wait())
	})
	url, err = bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	url = strings.TrimSpace(url)
	p := open(t, url, desktop)
	figure := func(chip string) string {
		return fmt.Sprintf(`+document.querySelector('[data-show=%s] b').textContent`, chip)
	}
	done := 20
	if *keepPictures {
		done = 150
	}
	p.until(figure("done") + fmt.Sprintf(" > %d", done) + ` && ` + figure("failed") + ` > 2 && ` + figure("queued") + ` > 3`)
	return url
}
