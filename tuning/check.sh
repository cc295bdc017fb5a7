#!/bin/sh
# Says which settings of this machine are not what so many connections need, and the command that mends each.
#
#     tuning/check.sh [N] [--outgoing] [--listeners=L]
#
# N is the number of connections, 180,000 by default. --outgoing: the clients are on this machine too, as with a load
# generator or a proxy. --listeners: how many the router's configuration has, 1 by default; each takes a descriptor on every
# core. Reads only, needs no root, and ends with exit code 1 if something is to be mended.
# shellcheck disable=SC1091,SC2154 # targets.sh is beside it, and sets what is not assigned here.
set -eu

. "$(dirname "$0")/targets.sh"

usage() {
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

number=180000
outgoing=1
listeners=1
for argument; do
    case $argument in
        --outgoing) outgoing=2 ;;
        --listeners=*)
            listeners=${argument#*=}
            is_number "$listeners" || usage
            ;;
        *)
            is_number "$argument" || usage
            number=$argument
            ;;
    esac
done
set_targets "$number" "$outgoing" "$listeners"
wrong=0

# report STATE NAME VALUE WANTED [MEND]
report() {
    printf '%-4s  %-32s %-22s %s\n' "$1" "$2" "$3" "$4"
    if [ "$1" != ok ] && [ -n "${5:-}" ]; then
        printf '      mend: %s\n' "$5"
    fi
    case $1 in
        LOW | HIGH) wrong=$((wrong + 1)) ;;
    esac
}

check_setting() {
    value=$(value_of "$1")
    merged=$(merge "$1" "$value" "$2")
    state=LOW
    case $(bounds_of "$1") in
        '- +') wanted="from at most ${2% *} to at least ${2#* }" ;;
        '- - .') state=HIGH wanted="at most ${2% *}, and any" ;;
        -) state=HIGH wanted="at most $2" ;;
        *) wanted="at least $2" ;;
    esac
    if [ "$merged" = "$value" ]; then
        report ok "$1" "$value" "$wanted"
    else
        report "$state" "$1" "$value" "$wanted" "sysctl -w $1=\"$merged\""
    fi
}

# check_limit NAME VALUE TARGET MEND
check_limit() {
    if [ "$2" = unlimited ] || [ "$2" -ge "$3" ]; then
        report ok "$1" "$2" "at least $3"
    else
        report LOW "$1" "$2" "at least $3" "$4"
    fi
}

# limit_of PROCESS NAME: its hard limit.
limit_of() {
    sed -n "s/^$2  *[^ ]*  *\([^ ]*\) .*/\1/p" "/proc/$1/limits" 2>/dev/null
}

# The limits of routers that run, and of this shell: what is started from it inherits them.
# shellcheck disable=SC3045 # Every sh of Linux knows -H and -l.
check_limits() {
    for process in /proc/[0-9]*; do
        if [ "$(cat "$process/comm" 2>/dev/null)" = crosspoint ]; then
            process=${process#/proc/}
            descriptors=$(limit_of "$process" 'Max open files')
            locked=$(limit_of "$process" 'Max locked memory')
            if [ -n "$descriptors" ]; then
                check_limit "nofile of process $process" "$descriptors" "$nofile" \
                    "LimitNOFILE=$nofile in its unit, or ulimit -n $nofile before it is started"
            fi
            if [ -n "$locked" ]; then
                check_limit "memlock of process $process, bytes" "$locked" $((memlock_kib * 1024)) \
                    "LimitMEMLOCK=${memlock_kib}K in its unit, or ulimit -l $memlock_kib before it is started"
            fi
        fi
    done
    check_limit 'nofile of this shell' "$(ulimit -H -n)" "$nofile" \
        "tuning/apply.sh $connections and a new login, or as root: ulimit -n $nofile"
    check_limit 'memlock of this shell, KiB' "$(ulimit -H -l)" "$memlock_kib" \
        "tuning/apply.sh $connections and a new login, or as root: ulimit -l $memlock_kib"
}

check_memory() {
    wanted="at least $((memory_needed_kib / 1024)) MiB while all are idle"
    if [ "$memory_kib" -ge "$memory_needed_kib" ]; then
        report ok memory "$((memory_kib / 1024)) MiB" "$wanted"
    else
        report LOW memory "$((memory_kib / 1024)) MiB" "$wanted" 'more memory, or fewer connections'
    fi
}

# mask_of PROCESSORS: the mask that has all of them, in words of 32 bits as /proc writes it.
mask_of() {
    awk -v left="$1" 'BEGIN {
        for (; left > 32; left -= 32) rest = rest ",ffffffff"
        printf "%x%s\n", 2 ^ left - 1, rest
    }'
}

# Interrupts of network cards beside executors that are pinned, one to each processor. Advice, never LOW: what is best
# depends on the card, and a daemon such as irqbalance may move interrupts at any time.
check_card() {
    card=$1
    queues=$(find "/sys/class/net/$card/queues" -name 'rx-*' 2>/dev/null | wc -l)
    taken=$(for interrupt in $(card_interrupts "$card"); do
        cat "/proc/irq/$interrupt/effective_affinity_list" 2>/dev/null ||
            cat "/proc/irq/$interrupt/smp_affinity_list" 2>/dev/null || true
    done | sort -u | wc -l)
    if [ "$queues" -ge "$processors" ]; then
        wanted="queues of $card on $processors processors"
        if [ "$taken" -ge "$processors" ]; then
            report ok 'interrupts' "on $taken" "$wanted"
        else
            report note 'interrupts' "on $taken" "$wanted" \
                "stop irqbalance, then give each a processor: echo PROCESSOR >/proc/irq/NUMBER/smp_affinity_list"
        fi
        return
    fi
    # Fewer queues than processors: one processor would do the work of the network for all executors, and the one that
    # is pinned to it would be slower than the others.
    mask=$(mask_of "$processors")
    for queue in "/sys/class/net/$card/queues/"rx-*; do
        if [ -r "$queue/rps_cpus" ]; then
            value=$(cat "$queue/rps_cpus")
            wanted="receive queues of $card: $queues, processors: $processors"
            if [ -z "$(echo "$value" | tr -d '0,')" ]; then
                report note "RPS of ${queue##*/}" "$value" "$wanted" "echo $mask >$queue/rps_cpus"
            else
                report ok "RPS of ${queue##*/}" "$value" "$wanted"
            fi
        fi
    done
}

# card_interrupts CARD: their numbers.
card_interrupts() {
    if [ -d "/sys/class/net/$1/device/msi_irqs" ]; then
        ls "/sys/class/net/$1/device/msi_irqs"
    else
        # virtio has them at the device above its own.
        ls "/sys/class/net/$1/device/../msi_irqs" 2>/dev/null || true
    fi
}

check_cards() {
    found=0
    for path in /sys/class/net/*; do
        if [ -e "$path/device" ]; then
            found=1
            check_card "${path##*/}"
        fi
    done
    if [ "$found" = 0 ]; then
        echo 'note  no network card here: IRQ affinity and RPS are not looked at'
    fi
}

echo "for $connections connections$([ "$ends" = 1 ] || echo ', and their clients on this machine')"
each_setting check_setting
[ -e /proc/sys/net/netfilter/nf_conntrack_max ] || echo 'note  connections are not tracked here (nf_conntrack)'
[ "$ends" = 2 ] || echo 'note  the range of local ports matters to load generators and proxies alone (--outgoing)'
check_limits
check_memory
check_cards
if [ "$wrong" = 0 ]; then
    echo "all is enough for $connections connections"
else
    echo "$wrong not as $connections connections need it; tuning/apply.sh $connections mends what is not memory"
    exit 1
fi
