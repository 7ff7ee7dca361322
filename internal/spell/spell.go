// Package spell compares names, for errors that say what may have been meant.
package spell

// Distance is the number of bytes to add, drop or replace to make b of a, or
// any number that is not less than bound.
func Distance(a, b string, bound int) int {
	if d := len(a) - len(b); d >= bound || -d >= bound {
		return bound
	}
	if a == b {
		return 0
	}
	var buf [64]int
	row := buf[:0]
	for j := range len(b) + 1 {
		row = append(row, j)
	}
	for i := range len(a) {
		diagonal, best := row[0], i+1
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d++
			}
			diagonal = row[j+1]
			row[j+1] = min(d, row[j]+1, diagonal+1)
			best = min(best, row[j+1])
		}
		if best >= bound { // it never gets less from row to row
			return bound
		}
	}
	return row[len(b)]
}
