// A typed emitter, which is all the SDK needs of one.

/** Emits the events of E: name → what the listener is given. A listener that throws does not stop the others. */
export class Emitter<E extends object> {
  private readonly listeners = new Map<keyof E, Set<(event: never) => void>>()

  /** @returns a function that ends the listening. */
  on<K extends keyof E>(name: K, listener: (event: E[K]) => void): () => void {
    const all = this.listeners.get(name) ?? new Set()
    this.listeners.set(name, all.add(listener))
    return () => void all.delete(listener)
  }

  /** The next event of that name that fits. */
  once<K extends keyof E>(name: K, fits: (event: E[K]) => boolean = () => true): Promise<E[K]> {
    return new Promise((resolve) => {
      const off = this.on(name, (event) => {
        if (!fits(event)) return
        off()
        resolve(event)
      })
    })
  }

  /** Tells every listener, in the order in which they came. What one throws is thrown where nobody is hurt: in a task of its own. */
  emit<K extends keyof E>(name: K, event: E[K]): void {
    for (const listener of [...(this.listeners.get(name) ?? [])]) {
      try {
        ;(listener as (event: E[K]) => void)(event)
      } catch (error) {
        queueMicrotask(() => {
          throw error
        })
      }
    }
  }
}
