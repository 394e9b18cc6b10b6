/** Threads, direct buffers, compression, class loading and hashing: the parts of a JVM that call malloc. */
import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
import java.util.zip.*;

public class Work {
    public static void main(String[] arguments) throws Exception {
        Random random = new Random(7);
        Map<String, Integer> counts = new TreeMap<>();
        StringBuilder text = new StringBuilder();
        for (int index = 0; index < 100_000; index++) {
            String word = random.ints(1 + random.nextInt(10), 'a', 'z' + 1).mapToObj(c -> "" + (char) c).collect(Collectors.joining());
            counts.merge(word, 1, Integer::sum);
            text.append(word).append(' ');
        }
        byte[] bytes = text.toString().getBytes("UTF-8");
        System.out.println(counts.size() + " " + hex(MessageDigest.getInstance("SHA-256").digest(bytes)));

        ExecutorService pool = Executors.newFixedThreadPool(6);
        List<Future<Long>> sums = new ArrayList<>();
        for (int task = 0; task < 60; task++) {
            int number = task;
            sums.add(pool.submit(() -> compressed(bytes, number)));
        }
        long sum = 0;
        for (Future<Long> part : sums) sum += part.get();
        pool.shutdown();
        System.out.println(sum + " " + pool.awaitTermination(60, TimeUnit.SECONDS));

        List<ByteBuffer> buffers = new ArrayList<>();
        for (int index = 1; index < 400; index++) {
            ByteBuffer buffer = ByteBuffer.allocateDirect(index * 97);
            while (buffer.hasRemaining()) buffer.put((byte) index);
            buffers.add(buffer.flip());
            if (index % 3 == 0) buffers.remove(random.nextInt(buffers.size()));
        }
        CRC32 crc = new CRC32();
        buffers.forEach(crc::update);
        System.out.println(crc.getValue());

        for (int round = 0; round < 200; round++) {
            Thread thread = new Thread(() -> ThreadLocalRandom.current().nextInt());
            thread.start();
            thread.join();
        }
        System.out.println(IntStream.range(0, 300_000).parallel().mapToObj(Integer::toString).mapToLong(String::length).sum());
    }

    private static long compressed(byte[] bytes, int number) throws Exception {
        Deflater deflater = new Deflater(1 + number % 9);
        deflater.setInput(bytes, number, 50_000);
        deflater.finish();
        byte[] packed = new byte[100_000];
        int length = deflater.deflate(packed);
        deflater.end();
        Inflater inflater = new Inflater();
        inflater.setInput(packed, 0, length);
        byte[] back = new byte[50_000];
        inflater.inflate(back);
        inflater.end();
        return Arrays.equals(back, Arrays.copyOfRange(bytes, number, number + 50_000)) ? length : -1_000_000;
    }

    private static String hex(byte[] bytes) {
        return HexFormat.of().formatHex(bytes);
    }
}
