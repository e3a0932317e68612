package config

// fallbackMemory is assumed when the machine does not say what it has.
const fallbackMemory = 4 << 30
