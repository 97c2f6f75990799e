"""Thin clients of what others run: etcd, Consul, ZooKeeper, Kubernetes, DNS, the file system's events. Each file is
imported only when it is used; each knows a protocol and nothing of names, stores or proxies."""
