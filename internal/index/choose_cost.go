package index

import (
	"fmt"
	"math"
)

// What a search takes in nanoseconds, by a graph and by an inverted file whose efforts were measured: to tell which is
// the faster where the number of directions does not. Rows can lie in heaps that a walk hardly leaves: of texts by their words (74,655
// rows of 256 values, in 9 directions) a walk finds with 82 candidates what an inverted file finds in 6 lists, in 2.5 times the
// time. Of eight sets of 25 to 1,536 values, 65,000 to 500,000 rows, single searches took up to a half more or less.
const (
	costAny = 2000 // whatever is read
	// Of a walk, for each candidate that it keeps, and for each line of memory of their codes.
	costKept, costKeptLine = 280, 50
	// Of lists, for each that there is, for each that is read, and for each of its rows: whatever the row is, and for each value.
	costThere, costList, costRow, costRowValue = 1, 50, 0.3, 0.006
	// Of ranking a row: whatever it is, and for each byte that it is ranked by.
	costRank, costRankByte = 60, 0.07
	// How many rows are ranked behind a walk and behind lists.
	costWalkRanks, costListRanks = 25, 70
)

// Of the comparing.
const (
	// costFew is how many lists are read where next to nothing has to be, and costWorth how many times the time of that a walk has to
	// take for an inverted file to be built, too: a tenth to a half of what building the graph took.
	costFew, costWorth = 4, 2
	// costSure is the part of the time of walks that lists have to take at most for usualRecall. For costMost they may take as
	// long: codes of few values do not tell enough rows apart for it.
	costSure, costMost = 0.85, 0.99
)

func rankCost(rows, stride int) float64 {
	return float64(rows) * (costRank + costRankByte*float64(stride))
}

// cost is what a search takes for a wanted recall.
func (g *sqGraph) cost(recall float64) float64 { return g.costOf(g.shares.effort(calibrateK, recall)) }

// costOf is what a search of an effort takes.
func (g *sqGraph) costOf(effort int) float64 {
	lines := float64(g.code.stride) / 64
	return float64(effort)*(costKept+costKeptLine*lines) + costAny + rankCost(costWalkRanks, g.rankStride())
}

// cost is the same of an inverted file.
func (x *ivf) cost(recall float64) float64 {
	return x.costOf(x.efforts.of(recall))
}

// costOf is what a search that reads so many lists takes.
func (x *ivf) costOf(lists int) float64 {
	return listsCost(x.n, readValues(x.width()), x.fine.stride, x.lists.n, lists)
}

// usualLists is how many lists an inverted file is taken to read for usualRecall: what it is told to, but as of a graph no more than likelyMost
// times what finds that in the mean.
func (x *ivf) usualLists() int {
	likely := x.efforts.of(withoutMargin(usualRecall))
	return min(x.efforts.of(usualRecall), int(math.Ceil(likelyMost*float64(likely))))
}

// readValues is how many values take as long to read as those of a row of so many do: codes of few have twice the bits.
func readValues(width int) int { return pqDims * numParts(width, partDims(width)) }

// listsCost is what reading some of all lists takes.
func listsCost(rows, values, stride, all, lists int) float64 {
	row := costRow + costRowValue*float64(values)
	return costAny + costThere*float64(all) + float64(lists)*(costList+row*float64(rows)/float64(all)) + rankCost(costListRanks, stride)
}

// doubtful says whether an inverted file may be faster than this graph.
func (g *sqGraph) doubtful() bool {
	if g.shares.effort(calibrateK, usualRecall) == 0 || !hasCodes(KindScaNN, g.dim) {
		return false // of the graph nothing is known, or lists are read whole
	}
	return g.cost(usualRecall) > costWorth*listsCost(g.rows, readValues(min(g.dim, mostHead)), g.rankStride(), listsFor(g.rows), costFew)
}

// finds reports whether reading lists found as much as that of the nearest rows when it was built, however many it took; true if it was not measured.
func (x *ivf) finds(recall float64) bool { return x.found == 0 || x.found >= recall }

// listsBetter says whether an inverted file is better than a graph of the same rows that is far or doubtful, and why.
func listsBetter(g *sqGraph, x *ivf) (why string, better bool) {
	if !g.far() {
		return listsFaster(g, x)
	}
	why = fmt.Sprintf("a graph would walk %d candidates for a recall of %v", g.shares.effort(calibrateK, usualRecall), usualRecall)
	if !x.finds(usualRecall) {
		return "", false
	}
	if walksTooFar(g.rows, g.walks()) {
		return why, true
	}
	// That far is to be sure of it.
	lists, walk := x.costOf(x.usualLists()), g.costOf(g.walks())
	return why, lists <= costSure*walk || lists <= walk && x.findsMostSooner(g)
}

// findsMostSooner says whether lists find costMost, no later than a graph does: one that finds usualRecall soon in the mean may hardly find more
// however far it walks.
func (x *ivf) findsMostSooner(g *sqGraph) bool {
	return x.finds(costMost) && x.cost(costMost) <= g.cost(costMost)
}

// listsFaster says whether an inverted file is faster than a graph of the same rows, and why.
func listsFaster(g *sqGraph, x *ivf) (why string, faster bool) {
	effort, lists := g.walks(), x.usualLists()
	if lists == 0 || !x.findsMostSooner(g) || x.costOf(lists) > costSure*g.costOf(effort) {
		return "", false
	}
	return fmt.Sprintf("%d lists are sooner read than a graph is walked for %d candidates, for a recall of %v", lists, effort, usualRecall), true
}
