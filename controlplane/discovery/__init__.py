"""Where endpoints come from besides the store: files, DNS, Kubernetes. Each source tells what it sees; none writes."""
