# What check.sh and apply.sh have in common: the numbers for so many connections, and what is below them. POSIX sh.
# shellcheck shell=sh disable=SC2034 # Those that source it use what it sets.

tuning=$(cd "$(dirname "$0")" && pwd)

# is_number WORD
is_number() {
    case $1 in
        '' | *[!0-9]*) return 1 ;;
    esac
}

# larger A B
larger() {
    if [ "$1" -gt "$2" ]; then echo "$1"; else echo "$2"; fi
}

# smaller A B
smaller() {
    if [ "$1" -lt "$2" ]; then echo "$1"; else echo "$2"; fi
}

# reserved_descriptors CORES LISTENERS: what the router keeps from connections for itself, by the rule of
# src/node/preflight.rs, where a test holds the two together.
reserved_descriptors() {
    larger 256 $((160 + $1 * (12 + $2)))
}

# set_targets CONNECTIONS ENDS LISTENERS: ends are 2 where the clients are on this machine too, otherwise 1.
set_targets() {
    connections=$1
    ends=$2
    # The router runs on all of them unless it is told otherwise.
    processors=$(grep -c '^processor' /proc/cpuinfo)
    nofile=$((connections + $(reserved_descriptors "$processors" "$3")))
    file_max=$((connections * ends + 65536))
    # A sixteenth of all connections may wait to be accepted: at 20,000 a second on two cores 180,000 need nine seconds,
    # and the kernel's clients try again after one, three and seven.
    backlog=4096
    while [ "$backlog" -lt $((connections / 16)) ] && [ "$backlog" -lt 65536 ]; do
        backlog=$((backlog * 2))
    done
    # The largest that listener.backlog may be.
    backlog=$(smaller "$backlog" 65535)
    memory_kib=$(awk '$1 == "MemTotal:" { print $2 }' /proc/meminfo)
    tcp_mem_high=$(smaller $((connections * ends)) $((memory_kib / 8)))
    tcp_mem_pressure=$((tcp_mem_high * 3 / 4))
    tcp_mem_low=$((tcp_mem_high / 2))
    # An entry is there for two minutes longer than its connection.
    conntrack=$((connections * 2 + 65536))
    memlock_kib=8192
    # 4 KB of an idle socket in the kernel for each end; 1.5 KB for the session and a subscription in the router, and as
    # much in the client; 64 MiB for the router itself.
    memory_needed_kib=$((connections * ends * 11 / 2 + 65536))
}

# render TEMPLATE: with the numbers in it.
render() {
    sed -e "s/@connections@/$connections/g" -e "s/@nofile@/$nofile/g" -e "s/@file_max@/$file_max/g" \
        -e "s/@backlog@/$backlog/g" -e "s/@tcp_mem_low@/$tcp_mem_low/g" \
        -e "s/@tcp_mem_pressure@/$tcp_mem_pressure/g" -e "s/@tcp_mem_high@/$tcp_mem_high/g" \
        -e "s/@conntrack@/$conntrack/g" -e "s/@memlock_kib@/$memlock_kib/g" "$tuning/$1"
}

# path_of KEY
path_of() {
    echo "/proc/sys/$(echo "$1" | tr . /)"
}

# is_wanted KEY: not every setting is there, or of interest, everywhere.
is_wanted() {
    case $1 in
        net.ipv4.ip_local_port_range) [ "$ends" = 2 ] ;;
        *) [ -e "$(path_of "$1")" ] ;;
    esac
}

# bounds_of KEY: whether each of its fields has to be at least (+) or at most (-) what the template says, or may be
# anything (.).
bounds_of() {
    case $1 in
        net.ipv4.ip_local_port_range) echo '- +' ;;
        net.ipv4.tcp_rmem | net.ipv4.tcp_wmem) echo '- - .' ;;
        kernel.io_uring_disabled) echo '-' ;;
        net.ipv4.tcp_mem) echo '+ + +' ;;
        *) echo '+' ;;
    esac
}

# merge KEY VALUE TARGET: the value that is nearest to what is in force and good enough.
merge() {
    echo "$2|$3|$(bounds_of "$1")" | awk -F'|' '{
        count = split($1, value, " "); split($2, target, " "); split($3, bound, " ")
        for (field = 1; field <= count; field++) {
            good = value[field] + 0 >= target[field] + 0
            if (bound[field] == "-") good = value[field] + 0 <= target[field] + 0
            if (bound[field] == ".") good = 1
            line = line (field > 1 ? " " : "") (good ? value[field] : target[field])
        }
        print line
    }'
}

# value_of KEY: its fields with one space between them.
value_of() {
    tr -s '\t ' ' ' <"$(path_of "$1")"
}

# each_setting FUNCTION: calls it with KEY and TARGET for each setting that is of interest here.
each_setting() {
    settings=$(render sysctl.conf | sed -n 's/^\([a-z][a-z0-9._-]*\) = \(.*\)$/\1|\2/p')
    old_ifs=$IFS
    IFS='
'
    for setting in $settings; do
        IFS=$old_ifs
        key=${setting%%|*}
        if is_wanted "$key"; then
            "$1" "$key" "${setting#*|}"
        fi
    done
    IFS=$old_ifs
}
