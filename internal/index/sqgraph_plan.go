package index

import "math"

// filterPlan is how a search with a filter goes, by what its parts are likely to cost. It is made for rows
// that are allowed by lot: where they are near to one another, a search finds that out.
type filterPlan struct {
	missing float64 // what the search may miss, as a walk of its effort without a filter does; 0: not known
	lists   int     // the effort with which lists miss no more
	scan    bool    // the rows allowed are compared one by one
	learn   bool    // lists are cheaper if the filter is known
	needs   float64 // the effort with which walks through all rows miss no more
	walk    int     // efforts up to which walks through all rows are cheaper than lists; 0: none is
	begin   bool    // such a walk is worth beginning
	hops    bool    // walks along allowed rows are cheaper than lists, where a walk through all of them is not
}

// What ways to search cost, in nanoseconds: comparing a row with all others that are allowed, for each line of its record
// and whatever that is; a walk, and following a row of it; and following one from allowed row to allowed row.
const (
	planScanLine, planScanRow    = 0.7, 3.8
	planWalks, planWalk, planHop = 5000, 350, 1600
	// Where a scan looks at first lines: whatever the rows are, and for each; and what part of the rows is compared for each deviation more
	// that they are followed than those of a scan that may miss planGlanceMissing, of embeddings of sentences.
	planGlance, planGlanceRow          = 1000, 1.6
	planGlanceSurer, planGlanceMissing = 0.12, 0.05
)

// Of plans.
const (
	// planRead is the part of the lists that a batch reads in place of walks which a search reads that ends by
	// what it meets.
	planRead = 0.6
	// planLeast is the least that lists are taken to miss whatever their effort. Where less than one of planMore parts of it may be
	// missing they take as many times more effort as that is less, but no more times than the walk's is planTwice the default.
	planLeast, planMore, planTwice = 0.005, 4, 2
	// planHopShare is the least share of the rows among which walks from allowed row to allowed row go as far as
	// those without a filter do.
	planHopShare = 0.25
	// planDoubt times what rows allowed by lot take lists are taken to cost with a filter that is not known: rows near to one another
	// take more.
	planDoubt = 1.5
	// planSure times the effort that rows allowed by lot take is walked with at most where nearly all are.
	planSure = 3
)

// plan says how k of the c rows that a filter allows, known or not, are searched for with the effort of a walk.
func (g *sqGraph) plan(k, ef, c int, known bool) filterPlan {
	p := filterPlan{missing: g.shares.missing(k, ef), lists: ef}
	if p.missing == 0 {
		p.scan = g.scansAllowed(c, ef)
		return p
	}
	share := float64(c) / float64(max(g.rows, 1))
	n := float64(g.lists.n)
	if reads := g.shares.inLists(k, ef); reads > 0 {
		p.lists = max(k, reads)
	}
	near := int(min(math.Ceil(float64(k)/share), float64(g.rows)))
	walk, lists := g.shares.takes(near, p.missing) // of rows allowed by lot
	looks := n * listLooks * float64(p.lists) * math.Pow(share, listPower) / float64(max(c, 1))
	if lists *= planRead; lists > 0 {
		looks = math.Sqrt(lists * looks) // neither says much alone
	}
	lists = min(looks, n)
	rows := float64(g.rows) / n
	each := listRead + listRow*share*rows
	cost := listFixed + listKnown*n + lists*each
	scan := g.scanCost(c, k, p.missing)
	doubt := 1.0
	if !known {
		p.learn = cost < scan
		cost, doubt = cost+lists*listLink*rows, planDoubt
	}
	p.scan, cost = scan <= doubt*cost, min(cost, scan)
	p.walk = min(int((cost-planWalks)/planWalk), poolMost)
	if share >= listMost {
		p.walk = max(p.walk, min(int(planSure*walk), poolMost)) // lists were measured with half of the rows: of all they find less
	}
	p.needs, p.begin = walk, walk <= float64(p.walk)
	p.hops = share >= planHopShare && planHop*float64(ef) < cost
	return p
}

// scanCost is what a scan of c rows for the k nearest is likely to cost that may miss a part of these.
func (g *sqGraph) scanCost(c, k int, missing float64) float64 {
	row := planScanRow + planScanLine*float64(g.code.lines())
	if g.glances(min(c, glanceMost), k, missing) {
		more := max(glanceDeviations(missing)-glanceDeviations(planGlanceMissing), 0)
		row = min(planGlanceRow+planGlanceSurer*more*row, row)
		return planGlance + row*float64(c)
	}
	return row * float64(c)
}

// lines is how many lines a record has.
func (c *coder) lines() int { return c.stride / 64 }

// knows reports whether anything is known of what walks find.
func (t shareTable) knows() bool { return len(t) > 0 && t[0].found > 0 }

// missing is what walks of an effort miss of the k nearest rows; 0: it is not known. What is missing goes by
// how many times k the effort is.
func (t shareTable) missing(k, ef int) float64 {
	below, missing := 0, 0.0
	for len(t) > 0 {
		var part shareTable
		part, t = t.part()
		of := int(part[0].rows)
		by := part.missed(float64(ef) * float64(of) / float64(max(k, 1)))
		if by == 0 {
			break
		}
		if of >= k {
			return between(below, missing, of, by, k)
		}
		below, missing = of, by
	}
	return missing
}

// missed is what walks of an effort miss, by a part of a table for one number of rows wanted; 0: it is not known.
func (t shareTable) missed(ef float64) float64 {
	below, missing := 0.0, 1.0
	for _, p := range t {
		if p.found == 0 {
			break
		}
		at, by := float64(p.effort), max(1-float64(p.found)/shareAll, mostMissing)
		switch {
		case at >= ef && below == 0:
			return by
		case at >= ef:
			return missing * math.Pow(by/missing, math.Log(ef/below)/math.Log(at/below))
		}
		below, missing = at, by
	}
	if below == 0 {
		return 0
	}
	return max(missing*below/ef, mostMissing) // as much less as there is more effort
}

// takes is the effort with which walks miss no more than a part of the k nearest rows, and how many lists find as much;
// 0: it is not known.
func (t shareTable) takes(k int, missing float64) (effort, lists float64) {
	below := 0
	for len(t) > 0 {
		var part shareTable
		part, t = t.part()
		of, by := int(part[0].rows), part.misses(missing, share.all)
		if by == 0 {
			break
		}
		read := part.worth(int(by))
		if below > 0 && lists == 0 {
			read = 0 // nor is it of more rows
		}
		if of >= k {
			if effort = between(below, effort, of, by, k); read > 0 {
				read = between(below, lists, of, read, k)
			}
			return effort, read
		}
		below, effort, lists = of, by, read
	}
	if below == 0 {
		return 0, 0
	}
	more := float64(k) / float64(below)
	return effort * more, lists * more
}

// inLists is the effort with which a search in lists misses no more of the k nearest rows that half of the
// rows are allowed of than a walk of an effort; 0: it is not known. Fewer rows than calibrateK are searched for as so many are.
func (t shareTable) inLists(k, ef int) int {
	part, _ := t.part()
	k = max(k, calibrateK)
	missing := t.missing(k, ef)
	more := max(min(planLeast/planMore/missing, float64(ef)/float64(planTwice*DefaultEffort(k))), 1)
	of := max(float64(k)/float64(part[0].rows), 1)
	return int(math.Ceil(min(more*of*part.misses(max(missing, planLeast), share.some), maxRows)))
}
