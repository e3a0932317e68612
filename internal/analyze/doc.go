// Package analyze turns text into tokens, the units that full-text conditions
// and indexes compare. The same analyzer has to see the stored text and the text
// that is looked for.
package analyze
