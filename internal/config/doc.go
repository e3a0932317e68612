// Package config holds the configuration of a node: what can be set, where it
// comes from, what it may be.
//
// Later sources win:
//
//	defaults  <  environment QUERYNODE_DEFAULT_SECTION_KEY  <  YAML file  <  environment QUERYNODE_SECTION_KEY  <  flags
//
// Everything is checked as a whole: Load reports all problems in one error, each
// with its key, where it was set and what is allowed. Keys that nobody knows are
// problems too, so that a typo is not a silent default.
package config
