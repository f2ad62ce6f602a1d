# Completion of dadafs for bash: made by tools/make_man, do not edit.
_dadafs() {
    local word=${COMP_WORDS[COMP_CWORD]} words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "mount umount status peers top explain version get warm server peer cache config doctor bugreport verify certs install --help --version" -- "$word")
        return
    fi
    case ${COMP_WORDS[1]} in
        mount) words="--foreground --cache --threads --results-size --memory --raw-memory --plugins --tls --no-local-peer --allow-other --metrics-port --config" ;;
        umount) words="--lazy" ;;
        status) words="--json" ;;
        peers) words="--json" ;;
        top) words="--once" ;;
        explain) words="" ;;
        version) words="" ;;
        get) words="" ;;
        warm) words="" ;;
        server) words="--root --listen --pool --pool-size --results --results-size --cache --metrics-port --tls --insecure-network --config" ;;
        peer) words="--server --listen --name --threads --cache --results-size --memory --root --plugins --metrics-port --tls --insecure-network --config" ;;
        cache) words="--cache stats verify clear" ;;
        config) words="--config show mount server peer" ;;
        doctor) words="--server --tls --quick" ;;
        bugreport) words="--output" ;;
        verify) words="--patches --plugins" ;;
        certs) words="" ;;
        install) words="--root" ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word"; compgen -f -- "$word")
}
complete -o filenames -F _dadafs dadafs
