package embedded

func childMain() {}
