// Package lifecycle starts and stops things in order and names what is stuck.
//
// Group owns goroutines; Gate lets calls in until it is shut; Stack owns started parts and closes them in reverse
// order with nested deadlines; Machine holds the state of the node:
//
//	Starting ──► Recovering ──► Serving ──► Draining ──► Stopping ──► Stopped
//	    │            │             │                         ▲
//	    └────────────┴─────────────┴─────────────────────────┘
//	      stopped early, failed, or told to stop without draining
//
//	              live   ready   draining   takes requests
//	Starting      yes    no      no         no
//	Recovering    yes    no      no         no
//	Serving       yes    yes     no         yes
//	Draining      yes    no      yes        yes: until the endpoint is gone
//	Stopping      yes    no      yes        no
//	Stopped       no     no      no         no
//
// Live, ready and draining are three answers to three questions: restart me?
// send me requests? am I going away? A node that drains is not ready and is not
// to be restarted.
package lifecycle
