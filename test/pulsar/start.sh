#!/usr/bin/env bash
# Starts a real Apache Pulsar (broker, one bookie, metadata store in RocksDB) on free ports of 127.0.0.1.
#
#   test/pulsar/start.sh DIR        prints PULSAR_URL, PULSAR_WEB_URL, PULSAR_PID and more; DIR/env holds the same lines
#   test/pulsar/stop.sh  DIR [-9]   stops it, or kills it as a crash would
#
# The stock distribution comes from Maven Central the first time and is kept in $QUERYNODE_TEST_CACHE (default ~/.cache/querynode).
# Starting again on the same DIR keeps its ports and messages. It needs a JDK 17 or newer, and Maven for the first time. How full the
# disk of DIR is does not matter, as long as there is room for what is written.
#
# Variables: PULSAR_VERSION (4.0.8), PULSAR_HEAP and PULSAR_DIRECT (256m each), PULSAR_CONF_EXTRA ("key=value key=value", which win over
# the broker's configuration below), PULSAR_TIMEOUT (seconds until it must be healthy, 150), PULSAR_OWNER (a pid: the broker is stopped when
# that process is gone), PULSAR_TOKEN (for the admin API of a broker that asks for one), PULSAR_PROXY (host:port of something that carries
# connections to the address printed as PULSAR_PROXIED: clients that come there are told to come back by way of it; or several of both, with
# commas between), PULSAR_NICE (10), JAVA_HOME.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
data=${1:?usage: start.sh DIR}
mkdir -p "$data"
data=$(cd "$data" && pwd)
version=${PULSAR_VERSION:-4.0.8}
cache=${QUERYNODE_TEST_CACHE:-$HOME/.cache/querynode}
home=$cache/apache-pulsar-$version

if [[ -e $data/pid ]] && kill -0 "$(<"$data/pid")" 2>/dev/null; then
	echo "already running, pid $(<"$data/pid")" >&2
	cat "$data/env"
	exit
fi

if [[ ! -e $home/.complete ]]; then
	mkdir -p "$cache"
	(
		flock 8 # of two that start at once one unpacks
		if [[ ! -e $home/.complete ]]; then
			cp "$here/pom.xml" "$cache/pulsar-pom.xml" # Maven leaves a folder beside its pom
			mvn -B -q -f "$cache/pulsar-pom.xml" -Dpulsar.version="$version" -Dpulsar.out="$cache" generate-resources >&2
			touch "$home/.complete"
		fi
	) 8>"$cache/pulsar.lock"
fi

free_port() {
	local p
	while :; do
		p=$((20000 + (RANDOM * 32768 + RANDOM) % 12000)) # below the ports that the kernel gives to clients
		if ! (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null; then
			echo "$p"
			return
		fi
	done
}
if [[ ! -e $data/ports ]]; then
	echo "broker=$(free_port) web=$(free_port) bookie=$(free_port)" >"$data/ports"
fi
# shellcheck disable=SC1091
source "$data/ports"
binds='' listeners=direct:pulsar://127.0.0.1:$broker proxied=''
proxies=${PULSAR_PROXY:-}
for p in ${proxies//,/ }; do
	name=proxy${p//[^0-9]/} # the same one at every start
	if ! grep -q "^$name=" "$data/ports"; then echo "$name=$(free_port)" >>"$data/ports"; fi
	at=127.0.0.1:$(sed -n "s/^$name=//p" "$data/ports")
	binds+=,$name:pulsar://$at listeners+=,$name:pulsar://$p proxied+=,$at
done
proxy=
if [[ -n $binds ]]; then
	proxy="bindAddresses=${binds#,}
internalListenerName=direct
advertisedListeners=$listeners"
fi

# What is not said here is as in a stock installation. Both bindAddress and listeningInterface are needed to keep the bookie off 0.0.0.0.
# A bookie goes read-only, and no ledger can be created, above a share of the disk in use or below a gigabyte or so that is free. Others
# fill this disk too, so both bounds are as far away as can be; a threshold of 1 is refused. Of a key that comes twice the last one counts.
awk -F= 'NF { if (!($1 in at)) { at[$1] = ++n }; line[at[$1]] = $0 } END { for (i = 1; i <= n; i++) print line[i] }' >"$data/standalone.conf" <<CONF
clusterName=standalone
brokerServicePort=$broker
webServicePort=$web
bindAddress=127.0.0.1
listeningInterface=lo
advertisedAddress=127.0.0.1
allowLoopback=true
managedLedgerDefaultEnsembleSize=1
managedLedgerDefaultWriteQuorum=1
managedLedgerDefaultAckQuorum=1
numIOThreads=2
numHttpServerThreads=4
numOrderedExecutorThreads=2
topicOrderedExecutorThreadNum=2
numCacheExecutorThreadPoolSize=2
numExecutorThreadPoolSize=2
managedLedgerNumSchedulerThreads=2
bookkeeperClientNumWorkerThreads=2
bookkeeperClientNumIoThreads=2
managedLedgerCacheSizeMB=32
dbStorage_writeCacheMaxSizeMb=32
dbStorage_readAheadCacheMaxSizeMb=16
dbStorage_rocksDB_blockCacheSize=16777216
ledgerStorageClass=org.apache.bookkeeper.bookie.storage.ldb.DbLedgerStorage
nettyMaxFrameSizeBytes=5253120
journalMaxSizeMB=64
journalPreAllocSizeMB=4
diskUsageThreshold=0.99999
diskUsageWarnThreshold=0.9999
diskUsageLwmThreshold=0.9999
minUsableSizeForEntryLogCreation=1
minUsableSizeForHighPriorityWrites=1
minUsableSizeForIndexFileCreation=1
logSizeLimit=67108864
loadBalancerEnabled=false
loadManagerClassName=org.apache.pulsar.broker.loadbalance.NoopLoadManager
webSocketServiceEnabled=false
transactionCoordinatorEnabled=false
$proxy
$(tr ' ' '\n' <<<"${PULSAR_CONF_EXTRA:-}")
CONF

java=${JAVA_HOME:+$JAVA_HOME/bin/}java
release=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)
opts=(-Xms64m "-Xmx${PULSAR_HEAP:-256m}" "-XX:MaxDirectMemorySize=${PULSAR_DIRECT:-256m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto
	-Dio.netty.allocator.numHeapArenas=1 -Dio.netty.allocator.numDirectArenas=2 -Dio.netty.tryReflectionSetAccessible=true
	-Djava.net.preferIPv4Stack=true -Dpulsar.allocator.exit_on_oom=true -Dlog4j2.is.webapp=false "-Dlog4j.configurationFile=$here/log4j2.yaml")
for module in java.nio jdk.internal.misc java.io java.util.zip jdk.internal.platform java.lang; do
	opts+=(--add-opens "java.base/$module=ALL-UNNAMED")
done
opts+=(--add-opens java.management/sun.management=ALL-UNNAMED --add-opens jdk.management/com.sun.management.internal=ALL-UNNAMED)
archive=$cache/pulsar-$version-jdk$release.jsa # classes as Java keeps them ready; halves the time to start
if ((release >= 19)); then
	opts+=(-XX:+AutoCreateSharedArchive "-XX:SharedArchiveFile=$archive")
elif [[ -e $archive ]]; then
	opts+=("-XX:SharedArchiveFile=$archive")
elif [[ -n ${PULSAR_ARCHIVE:-} ]]; then
	opts+=("-XX:ArchiveClassesAtExit=$archive")
fi
if ((release >= 22)); then opts+=(--enable-native-access=ALL-UNNAMED); fi
if ((release >= 23)); then opts+=(--sun-misc-unsafe-memory-access=allow); fi

cd "$data"
began=$(date +%s%N)
if [[ -e $data/metadata ]]; then
	forget=$here/ForgetTheDead.java classes=$cache/classes-$version
	if type "${java}c" >/dev/null 2>&1; then # once, which saves more than a second of each start
		(
			flock 8
			if [[ ! $classes/ForgetTheDead.class -nt $forget ]]; then "${java}c" -d "$classes" -cp "$home/lib/*" "$forget"; fi
		) 8>"$cache/pulsar.lock"
		forget=ForgetTheDead
	fi
	"$java" "${opts[@]}" -cp "$home/lib/*:$classes" "$forget" "$data/metadata" >>"$data/pulsar.log" 2>&1 || {
		echo "cannot clean the metadata of the run before; the end of $data/pulsar.log:" >&2
		tail -20 "$data/pulsar.log" >&2
		exit 1
	}
fi
PULSAR_STANDALONE_USE_ZOOKEEPER=0 setsid nohup nice -n "${PULSAR_NICE:-10}" "$java" "${opts[@]}" -cp "$home/lib/*" org.apache.pulsar.PulsarStandaloneStarter \
	-c "$data/standalone.conf" -a 127.0.0.1 -nfw -nss --metadata-dir "$data/metadata" --bookkeeper-dir "$data/bookkeeper" \
	--bookkeeper-port "$bookie" >>"$data/pulsar.log" 2>&1 </dev/null &
pid=$!
echo "$pid" >"$data/pid"
if [[ -n ${PULSAR_OWNER:-} ]]; then
	setsid bash -c '
		while kill -0 "$1" 2>/dev/null && kill -0 "$2" 2>/dev/null; do sleep 2; done
		kill -0 "$1" 2>/dev/null || bash "$3/stop.sh" "$4" -9' - "$PULSAR_OWNER" "$pid" "$here" "$data" >/dev/null 2>&1 </dev/null &
fi
end=$((SECONDS + ${PULSAR_TIMEOUT:-150}))
admin() { curl -s -m 5 ${PULSAR_TOKEN:+-H "Authorization: Bearer $PULSAR_TOKEN"} "http://127.0.0.1:$web/admin/v2/$1" 2>/dev/null; }
# The broker is healthy a moment before it has made the namespace that topics are in.
until [[ $(admin brokers/health) == ok && $(admin namespaces/public) == *public/default* ]]; do
	if ! kill -0 "$pid" 2>/dev/null; then
		echo "Pulsar died; the end of $data/pulsar.log:" >&2
		tail -40 "$data/pulsar.log" >&2
		exit 1
	fi
	if ((SECONDS >= end)); then
		echo "Pulsar is not healthy in time; see $data/pulsar.log" >&2
		bash "$here/stop.sh" "$data" -9 >&2
		exit 1
	fi
	sleep 0.1
done
ms=$((($(date +%s%N) - began) / 1000000))
cat >"$data/env" <<ENV
PULSAR_URL=pulsar://127.0.0.1:$broker
PULSAR_WEB_URL=http://127.0.0.1:$web
PULSAR_PROXIED=${proxied#,}
PULSAR_PID=$pid
PULSAR_READY_S=$((ms / 1000)).$(printf %03d $((ms % 1000)))
ENV
cat "$data/env"
